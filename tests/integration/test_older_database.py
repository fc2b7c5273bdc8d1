"""An older database is brought back: Label Studio ends with one prediction a task, of the current version."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from cut_wires import wire_to
from loop_fakes import Bench

from ml_backend.command.backup import back_up, restore
from ml_backend.config import Settings
from ml_backend.due import find_due
from ml_backend.storage import health
from ml_backend.storage.projects import get_project

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(service_backend: Any) -> Settings:
    """With a database of its own: a dump holds all schemas of one."""
    torch.set_num_threads(1)
    usual = {"min_pixels_per_class": 100, "draft_s": 0.0, "consolidate_s": 0.0}
    if not service_backend.database_url:
        return Settings(data_dir=service_backend.data_dir, **usual)
    server, name = service_backend.database_url.rpartition("/")[0], f"b_{uuid.uuid4().hex[:8]}"
    engine = sa.create_engine(f"{server}/postgres".replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return Settings(data_dir=service_backend.data_dir, database_url=f"{server}/{name}", **usual)


def open_bench(settings: Settings, before: Bench | None = None) -> Bench:
    """A process over the settings; with `before`, beside the same Label Studio, some minutes later."""
    bench = Bench(settings)
    if before is not None:
        bench.server, bench.images, bench.clock.now = before.server, before.images, before.clock.now + 400
    return bench


def do_what_is_due(bench: Bench) -> None:
    """As a worker does, until nothing is due."""
    jobs: dict[str, Callable[[int], object]] = {
        "reconcile": bench.loop.reconcile, "build": bench.loop.build_truth, "round": bench.loop.run_round,
        "push": bench.loop.push, "score": bench.loop.score, "rank": bench.loop.rank,
        "sync": bench.loop.sync_project_order,
    }  # fmt: skip
    for _ in range(50):
        with bench.parts.database.read() as connection:
            due = find_due(connection, get_project(connection, 1), bench.parts.settings, bench.clock())
        if not due:
            return
        jobs[due[0]](1)
        bench.clock.now += 1
    raise AssertionError(f"{due} is due without end")


@pytest.mark.parametrize("paints_more", [True, False], ids=["painted since", "only trained since"])
def test_versions_that_the_database_forgot_are_ours_in_label_studio(
    settings: Settings, tmp_path: Path, paints_more: bool
) -> None:
    bench = open_bench(settings)
    bench.server.backends = [{"title": "Brushloop"}]
    bench.server.add_task(9)
    bench.submit(1)
    bench.clock.now += 60
    do_what_is_due(bench)
    back_up(settings, tmp_path / "older")
    if paints_more:
        bench.submit(2)
    bench.loop.request_training(1)
    bench.clock.now += 60
    do_what_is_due(bench)
    bench.loop.suggest(1, [bench.task(9)], None, np.inf)
    bench.clock.now += 60
    do_what_is_due(bench)
    forgotten = bench.status()["model_version"]
    assert forgotten.startswith("r0002")
    assert bench.server.backends[0]["title"] == forgotten
    bench.close()

    again = settings.model_copy(update={"data_dir": tmp_path / "again"})
    restore(again, tmp_path / "older")
    after = open_bench(again, bench)
    assert after.status()["model_version"].startswith("r0001")
    for task_id in (1, 9):  # as Label Studio does by itself when somebody opens a task
        (answer,) = after.loop.suggest(1, [after.task(task_id)], None, np.inf)
        assert answer is not None
        after.server.place(task_id, answer)
    after.clock.now += 60
    do_what_is_due(after)
    version = after.status()["model_version"]
    assert version.startswith("r0002" if paints_more else "r0001")
    held = after.server.predictions.values()
    assert set(Counter(task_id for task_id, _ in held).values()) == {1}
    assert {task_id: p["model_version"] for task_id, p in held}[9] == version
    assert [row["title"] for row in after.server.backends] == [version]
    assert after.server.model_version == version
    n_painted = 2 if paints_more else 1
    assert after.status()["annotations"] == {"received": n_painted, "trained": n_painted, "pending": 0}
    after.close()


@pytest.mark.parametrize("service_backend", ["postgres+redis"], indirect=True)
def test_a_database_that_is_away_is_the_only_thing_that_is_said_and_only_while_it_lasts(
    settings: Settings,
) -> None:
    assert settings.database_url is not None
    with wire_to(settings.database_url.get_secret_value()) as wire:
        bench = open_bench(
            settings.model_copy(update={"database_url": type(settings.database_url)(wire.address)})
        )
        with bench.parts.database.write() as connection:
            health.note_worker(connection, "elsewhere|1|1|w", bench.clock())
        well = bench.loop.ready()
        wire.cut()
        away = bench.loop.ready()
        wire.mend()
        assert bench.loop.ready() == well
        bench.close()
    assert well["ready"]
    assert not away["ready"]
    assert [name for name, said in away["checks"].items() if said] == ["database"]
