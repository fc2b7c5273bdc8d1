"""Old models: their files go, their rows stay, and nobody can go back to what is not there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import torch
from loop_fakes import Bench, make_bench

from ml_backend.errors import ConflictError
from ml_backend.rounds.sweeping import sweep
from ml_backend.storage import models, rounds, tables
from ml_backend.storage.projects import get_project
from ml_backend.web.prometheus import round_outcome

CHECKPOINT = Path(__file__).parents[1] / "fixtures" / "checkpoints" / "format-2"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    torch.set_num_threads(1)
    bench = make_bench(tmp_path, keep_models=2)
    bench.loop.connect(1, "1795331929", bench.server.label_config, "http://label-studio", "token")
    yield bench
    bench.close()


def publish_empty(bench: Bench, numbers: range) -> list[str]:
    """Versions with a folder each, every one the child of the one before; the last is current."""
    versions = [f"r{number:04d}-00000000" for number in numbers]
    with bench.parts.database.write() as connection:
        project = get_project(connection, 1)
        for number, version in zip(numbers, versions, strict=True):
            folder = bench.parts.artifacts(project).models / version
            shutil.copytree(CHECKPOINT, folder)
            os.utime(folder, (1.0, 1.0))
            parent = f"r{number - 1:04d}-00000000" if number > numbers.start else None
            models.add_model(connection, 1, models.to_model(version, number, parent, 0, float(number), {}))
        models.set_current(connection, 1, versions[-1])
    return versions


def drop(bench: Bench, n_kept: int) -> list[str]:
    with bench.parts.database.write() as connection:
        return models.drop_old(connection, 1, n_kept)


def folders(bench: Bench) -> list[str]:
    with bench.parts.database.read() as connection:
        project = get_project(connection, 1)
    sweep(bench.parts, project)
    return sorted(path.name for path in bench.parts.artifacts(project).models.iterdir())


def test_the_newest_versions_keep_their_files_and_all_keep_their_rows(bench: Bench) -> None:
    versions = publish_empty(bench, range(1, 7))
    assert drop(bench, 3) == versions[2::-1]
    assert folders(bench) == versions[3:]
    assert bench.loop.versions(1) == versions[:2:-1]
    with bench.parts.database.read() as connection:
        assert all(models.find_model(connection, 1, version) for version in versions)


def test_the_current_version_and_its_parent_stay_however_old(bench: Bench) -> None:
    versions = publish_empty(bench, range(1, 7))
    bench.loop.rollback(1, versions[1])
    drop(bench, 1)
    assert folders(bench) == [versions[0], versions[1], versions[5]]


def test_a_kill_between_the_row_and_the_files_leaves_nothing_behind(bench: Bench) -> None:
    versions = publish_empty(bench, range(1, 4))
    drop(bench, 1)  # and the process ends before it sweeps
    assert drop(bench, 1) == []
    assert folders(bench) == versions[1:]


def test_base_weights_that_an_earlier_version_adapted_to_the_project_are_removed(bench: Bench) -> None:
    publish_empty(bench, range(1, 2))
    with bench.parts.database.read() as connection:
        base = bench.parts.artifacts(get_project(connection, 1)).root / "base"
    base.mkdir()
    (base / "weights.safetensors").write_bytes(b"0")
    folders(bench)
    assert not base.exists()


def test_going_back_to_a_version_without_files_is_a_conflict_and_changes_nothing(bench: Bench) -> None:
    versions = publish_empty(bench, range(1, 5))
    drop(bench, 2)
    with pytest.raises(ConflictError, match="KEEP_MODELS is 2"):
        bench.loop.rollback(1, versions[0])
    assert bench.status()["model_version"] == versions[-1]


def test_a_round_lets_go_of_old_versions_by_itself(bench: Bench) -> None:
    versions = publish_empty(bench, range(-3, 1))
    with bench.parts.database.write() as connection:
        models.set_current(connection, 1, "untrained")
    bench.submit(1)
    version = bench.loop.run_round(1)
    with bench.parts.database.write() as connection:
        models.set_current(connection, 1, str(version))
    bench.submit(2)
    bench.loop.run_round(1)
    assert not set(versions[:-1]) & set(folders(bench))
    assert version in folders(bench)


def test_rounds_are_counted_by_how_they_ended_as_their_reports_say(bench: Bench) -> None:
    bench.submit(1)
    bench.loop.run_round(1)
    with bench.parts.database.write() as connection:
        number = rounds.begin(connection, 1, "elsewhere|1|1|x", 1, bench.clock(), lambda running: False)
        assert number is not None
        rounds.finish(connection, 1, number, "elsewhere|1|1|x", "failed", bench.clock(), error="no")
    told = [round_outcome(report) for report in bench.loop.rounds(1)]
    assert bench.loop.view(1, 0).outcomes == {name: told.count(name) for name in told}
    assert len(bench.loop.rounds(1, 1)) == 1


def test_what_is_beyond_keep_models_goes_with_the_round_that_drops_it(bench: Bench) -> None:
    """However young the files are: the row says that nobody writes them any more."""
    for number in (1, 2, 3, 4, 5):
        bench.submit(number)
        bench.loop.request_training(1)
        bench.loop.run_round(1)
    with bench.loop.parts.database.read() as connection:
        kept = set(models.list_folders(connection, 1))
        project = get_project(connection, 1)
    folders = {path.name for path in bench.loop.parts.artifacts(project).models.iterdir()}
    assert folders == kept
    assert len(kept) <= 3  # two, and the parent of the current one


def test_a_report_is_kept_once_and_the_model_shows_that_of_its_round(bench: Bench) -> None:
    bench.submit(1)
    version = bench.loop.run_round(1)
    with bench.parts.database.read() as connection:
        stored = connection.execute(sa.select(tables.models.c.report)).scalar_one()
        model = models.get_model(connection, 1, str(version))
        (made_in,) = rounds.list_rounds(connection, 1)
    assert stored == ""
    assert json.loads(model.report) == json.loads(str(made_in.report))
    assert model.to_record()["held_out"] is not None


def test_only_the_newest_rounds_and_those_of_kept_models_keep_their_reports(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "REPORTS_KEPT", 3)
    with bench.parts.database.write() as connection:
        for number in range(1, 8):
            rounds.begin(connection, 1, "a", 1, float(number), lambda _: False)
            rounds.finish(connection, 1, number, "a", "done", float(number), report={"seconds": number})
    publish_empty(bench, range(2, 3))
    with bench.parts.database.write() as connection:
        rounds.drop_old_reports(connection, 1)
    with bench.parts.database.read() as connection:
        kept = [stored.number for stored in rounds.list_rounds(connection, 1) if stored.report]
        assert rounds.count_outcomes(connection, 1) == {"kept": 7}
    assert kept == [7, 6, 5, 2]
    assert [report.get("seconds") for report in bench.loop.rounds(1)] == [7, 6, 5, None, None, 2, None]


def test_old_label_maps_and_dropped_models_go_by_time_without_a_round(bench: Bench) -> None:
    bench.submit(1)
    bench.loop.build_truth(1)
    with bench.parts.database.read() as connection:
        artifacts = bench.parts.artifacts(get_project(connection, 1))
    (old,) = artifacts.truth.iterdir()
    os.utime(old, (1.0, 1.0))
    bench.submit(1)
    bench.loop.build_truth(1)
    versions = publish_empty(bench, range(1, 7))
    drop(bench, 2)
    seen = []
    # While a round runs, it may be reading what is old.
    bench.trainer.during = lambda: seen.append((bench.loop.reconcile(1), old.exists()))
    bench.loop.run_round(1)
    assert seen[0][1]
    bench.loop.reconcile(1)
    assert not old.exists()
    assert sorted(path.name for path in artifacts.models.iterdir())[0] != versions[0]
