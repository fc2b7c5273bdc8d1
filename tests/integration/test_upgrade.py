"""What earlier versions wrote is opened, answered from and trained on.

The fixtures are databases after one round over two tasks, as two earlier versions left them.
"""

from __future__ import annotations

import gzip
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from loop_fakes import Bench, make_bench

from ml_backend.storage.database import SQLITE_NAME

pytestmark = pytest.mark.integration

FIXTURES = Path(__file__).parents[1] / "fixtures"
EARLIER = {"0001": "format-1", "0003_effort": "format-2"}
"""The schema of each, and the format of its models."""


def lay_out(folder: Path, schema: str) -> str:
    """The data folder of an earlier version; returns its live version."""
    folder.mkdir()
    with closing(sqlite3.connect(folder / SQLITE_NAME)) as connection:
        connection.executescript(
            gzip.decompress((FIXTURES / "databases" / f"{schema}.sql.gz").read_bytes()).decode()
        )
        ((name, version),) = connection.execute("SELECT folder, current_version FROM projects").fetchall()
    project = folder / "projects" / name
    shutil.copytree(FIXTURES / "checkpoints" / EARLIER[schema], project / "models" / version)
    (project / "truth").mkdir()
    return str(version)


def open_beside_label_studio(folder: Path) -> Bench:
    """With the tasks and annotations that Label Studio had, as they were."""
    torch.set_num_threads(1)
    bench = make_bench(folder)
    for task_id in (1, 2):
        bench.painted(task_id)
    bench.clock.now += 400
    return bench


@pytest.mark.parametrize("schema", EARLIER)
def test_the_data_of_an_earlier_version_is_opened_answered_from_and_trained_on(
    tmp_path: Path, schema: str
) -> None:
    version = lay_out(tmp_path / "data", schema)
    maps = np.full((3, 64, 64), 255, np.uint8)
    np.save(next((tmp_path / "data" / "projects").iterdir()) / "truth" / "1-1.npy", maps)  # of another size
    bench = open_beside_label_studio(tmp_path / "data")
    status = bench.status()
    assert status["model_version"] == version
    assert status["annotations"] == {"received": 2, "trained": 2, "pending": 0}
    (answer,) = bench.loop.suggest(1, [bench.task(9)], None, np.inf)
    # A network of the first format is not built any more; the next round replaces it.
    assert (answer is None) == (EARLIER[schema] == "format-1")
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
