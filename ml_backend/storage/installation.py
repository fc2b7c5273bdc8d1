"""Database and data folder belong together: both hold the identity of the installation, or it does not start.

An empty database beside a full folder is a database that was lost, not a new installation: going on would
sweep away everything that the lost one knew.
"""

from __future__ import annotations

import errno
import uuid
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection

from core.network.regular_files import read_regular
from ml_backend.errors import DatabaseRefusedError
from ml_backend.storage import tables

IDENTITY_FILE = "installation"
RESTORE = "bring it back with `brushloop restore`, or set DATA_DIR to an empty folder to begin anew"


def refuse_lost_database(connection: Connection, data_dir: Path, place: str) -> None:
    """Refuse a database without tables beside a folder that holds what one knew; before any migration."""
    if sa.inspect(connection).has_table(tables.projects.name):
        return
    if (data_dir / IDENTITY_FILE).exists() or any((data_dir / "projects").glob("*/models/*")):
        raise DatabaseRefusedError(
            f"the database {place} is empty, but {data_dir} holds its files: {RESTORE}"
        )


def refuse_lost_folder(data_dir: Path) -> None:
    """Raise `OSError` where the data folder is not there, or empty: the disk that holds it is not mounted."""
    if not (data_dir / IDENTITY_FILE).exists() and not any((data_dir / "projects").glob("*/models/*")):
        raise FileNotFoundError(errno.ENOENT, "DATA_DIR is away or empty; is its disk mounted?")


def identify(connection: Connection, data_dir: Path, place: str) -> str:
    """Give database and folder their common identity, or refuse two that do not belong together."""
    file = data_dir / IDENTITY_FILE
    stored = connection.execute(sa.select(tables.installation.c.identity)).scalar_one_or_none()
    # What is no text belongs to nobody, and is refused as such.
    beside = read_regular(file).decode(errors="replace").strip() if file.exists() else None
    if stored is None and beside:
        is_used = connection.execute(sa.select(tables.projects.c.project_id).limit(1)).first()
        if not is_used:
            raise DatabaseRefusedError(
                f"the database {place} is new, but {data_dir} belongs to another: {RESTORE}"
            )
    if stored and beside and stored != beside:
        raise DatabaseRefusedError(
            f"the database {place} and the folder {data_dir} belong to two installations: see DATA_DIR and"
            " DATABASE_URL, or bring both back from one backup with `brushloop restore`"
        )
    identity = str(stored or beside or uuid.uuid4().hex)
    if stored is None:
        connection.execute(sa.insert(tables.installation).values(identity=identity))
    if not beside:
        file.write_text(identity + "\n", encoding="utf-8")
    return identity
