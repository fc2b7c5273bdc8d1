"""What earlier versions wrote is opened, answered from and trained on.

The fixtures are databases after one round over two tasks, as two earlier versions left them.
"""

from __future__ import annotations

import gzip
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from alembic import command
from alembic.config import Config
from loop_fakes import Bench

from ml_backend.storage.database import SQLITE_NAME, connect_database

pytestmark = pytest.mark.integration

FIXTURES = Path(__file__).parents[1] / "fixtures"
EARLIER = {"0001": "format-1", "0003_effort": "format-2"}
"""The schema of each, and the format of its models."""


def lay_out(folder: Path, schema: str, database_url: str | None) -> str:
    """The data folder and the database of an earlier version; returns its live version."""
    folder.mkdir()
    with closing(sqlite3.connect(folder / SQLITE_NAME)) as connection:
        connection.executescript(
            gzip.decompress((FIXTURES / "databases" / f"{schema}.sql.gz").read_bytes()).decode()
        )
        ((name, version),) = connection.execute("SELECT folder, current_version FROM projects").fetchall()
    project = folder / "projects" / name
    shutil.copytree(FIXTURES / "checkpoints" / EARLIER[schema], project / "models" / version)
    (project / "truth").mkdir()
    if database_url:
        move_to_postgres(folder, schema, database_url)
    return str(version)


def move_to_postgres(folder: Path, schema: str, database_url: str) -> None:
    """The same rows in the tables that the earlier version made there, by its own migrations."""
    old, new = connect_database(folder), connect_database(folder, database_url)
    with old.read() as source, new.write() as target:
        config = Config()
        config.set_main_option("script_location", "ml_backend.storage:migrations")
        config.attributes["connection"] = target
        command.upgrade(config, schema)
        there, here = sa.MetaData(), sa.MetaData()
        there.reflect(target)
        here.reflect(source)
        for table in there.sorted_tables:
            rows = [dict(row._mapping) for row in source.execute(sa.select(here.tables[table.name]))]
            if rows and table.name != "alembic_version":
                target.execute(sa.insert(table), rows)
    old.close()
    new.close()
    for path in folder.glob(f"{SQLITE_NAME}*"):
        path.unlink()


def open_beside_label_studio(service_backend: Any) -> Bench:
    """With the tasks and annotations that Label Studio had, as they were."""
    torch.set_num_threads(1)
    settings = service_backend.settings(
        min_pixels_per_class=100, draft_s=0.0, consolidate_s=0.0, learners="network"
    )
    bench = Bench(settings)
    for task_id in (1, 2):
        bench.painted(task_id)
    bench.clock.now += 400
    return bench


@pytest.mark.parametrize("schema", EARLIER)
def test_the_data_of_an_earlier_version_is_opened_answered_from_and_trained_on(
    service_backend: Any, schema: str
) -> None:
    folder = service_backend.data_dir
    version = lay_out(folder, schema, service_backend.database_url)
    maps = np.full((3, 64, 64), 255, np.uint8)
    np.save(next((folder / "projects").iterdir()) / "truth" / "1-1.npy", maps)  # of another size
    bench = open_beside_label_studio(service_backend)
    status = bench.status()
    assert status["model_version"] == version
    assert status["annotations"] == {"received": 2, "trained": 2, "pending": 0}
    (answer,) = bench.loop.suggest(1, [bench.task(9)], None, np.inf)
    assert answer is not None
    assert answer["model_version"] == version
    assert status["last_error"] is None
    assert bench.loop.reconcile(1).changed_annotations == 0
    bench.submit(3)
    newest = bench.loop.run_round(1)
    assert newest is not None
    assert newest.startswith("r0002-")
    assert bench.status()["annotations"] == {"received": 3, "trained": 3, "pending": 0}
    (answer,) = bench.loop.suggest(1, [bench.task(9)], None, np.inf)
    assert answer is not None
    assert answer["model_version"] == newest
    assert len(bench.loop.rounds(1)) == 2
    assert bench.loop.picture(1, 1, "truth").startswith(b"\x89PNG")
    bench.close()
