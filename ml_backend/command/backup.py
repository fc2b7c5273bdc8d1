"""Backup of a running installation, and its way back: the database first, then the files that it names.

In this order whatever happens meanwhile is in the files and not yet in the database. Files that the database
does not know are harmless; label maps that it names and that are gone are built again from its rows.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from ml_backend.config import Settings, child_environment
from ml_backend.errors import ConflictError, ServiceError
from ml_backend.storage.database import SQLITE_NAME
from ml_backend.storage.installation import IDENTITY_FILE

DUMP = "database.dump"
PROJECTS = "projects"
NOT_KEPT = shutil.ignore_patterns("scratch", "pictures")
"""Made again when somebody asks."""


def back_up(settings: Settings, target: Path) -> None:
    """Write database and files into a new folder; it appears whole or not at all."""
    if target.exists():
        raise ConflictError(f"{target} is there already: name a folder that is not")
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    if settings.database_url:
        _run_postgres(settings, "pg_dump", "--format=custom", f"--file={unfinished / DUMP}")
    else:
        _copy_sqlite(settings.data_dir / SQLITE_NAME, unfinished / SQLITE_NAME)
    identity = settings.data_dir / IDENTITY_FILE
    if identity.exists():
        shutil.copy2(identity, unfinished / IDENTITY_FILE)
    _copy_files(settings.data_dir / PROJECTS, unfinished / PROJECTS)
    unfinished.rename(target)


def restore(settings: Settings, source: Path) -> None:
    """Bring a backup back into an empty data folder; nothing may run on it meanwhile."""
    data_dir = settings.data_dir
    if any((data_dir / name).exists() for name in (SQLITE_NAME, IDENTITY_FILE, PROJECTS)):
        raise ConflictError(f"{data_dir} is not empty: stop everything, and move what is in it away")
    kept = source / (DUMP if settings.database_url else SQLITE_NAME)
    if not kept.exists():
        raise ConflictError(f"{source} holds no {kept.name}: is it a backup, and is DATABASE_URL as it was?")
    data_dir.mkdir(parents=True, exist_ok=True)
    if settings.database_url:
        _run_postgres(settings, "pg_restore", "--clean", "--if-exists", "--no-owner", str(kept))
    else:
        _copy_sqlite(kept, data_dir / SQLITE_NAME)
    _copy_files(source / PROJECTS, data_dir / PROJECTS)
    if (source / IDENTITY_FILE).exists():
        shutil.copy2(source / IDENTITY_FILE, data_dir / IDENTITY_FILE)


def _copy_sqlite(source: Path, target: Path) -> None:
    """SQLite's own way to copy a database that others write to."""
    if not source.exists():
        raise ConflictError(f"there is no database {source}: see DATA_DIR")
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as live,
        closing(sqlite3.connect(target)) as copy,
    ):
        live.backup(copy)


def _copy_files(source: Path, target: Path) -> None:
    if not source.is_dir():
        return
    try:
        shutil.copytree(source, target, ignore=NOT_KEPT)
    except shutil.Error as error:
        # A round swept meanwhile: what the database needs of it is built again.
        gone = [path for path, _, _ in error.args[0] if Path(path).exists()]
        if gone:
            raise ServiceError(f"files could not be copied: {', '.join(map(str, gone[:3]))}") from None


def _run_postgres(settings: Settings, program: str, *arguments: str) -> None:
    url = settings.database_url.get_secret_value() if settings.database_url else ""
    plain = url.replace("postgresql+psycopg://", "postgresql://")
    command = [program, *arguments, f"--dbname={plain}"]
    try:
        subprocess.run(  # noqa: S603 - a program of PostgreSQL's, and our own settings
            command, check=True, capture_output=True, text=True, env=child_environment({})
        )
    except FileNotFoundError:
        raise ServiceError(f"{program} is not installed: install PostgreSQL's client") from None
    except subprocess.CalledProcessError as error:
        raise ServiceError(f"{program} failed: {error.stderr.strip().splitlines()[-1:]}") from None
