"""Run a study: every arm with every seed, round after round; what is finished is not done again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from simulation.acquisitions import Acquisition
from simulation.arm import Arm
from simulation.brush import Effort
from simulation.ground_truth import KnownImage, StudyError
from simulation.journal import Journal, RoundRecord
from simulation.settings import StudySettings
from simulation.visits import Visit

SETTINGS_FILE, STATE_FOLDER = "study.json", "state"


def run_study(
    settings: StudySettings, pool: Sequence[KnownImage], test: Sequence[KnownImage], folder: Path
) -> Iterator[RoundRecord]:
    """Yield each round as it is finished, those of an earlier run first.

    Raises `StudyError` when the folder holds a study with other settings or other images.
    """
    _claim(folder, settings, pool, test)
    journal = Journal(folder)
    for seed in range(settings.seeds):
        for acquisition in settings.acquisitions:
            finished = journal.finished(acquisition, seed)[: settings.rounds + 1]
            yield from finished
            if len(finished) <= settings.rounds:
                arm = Arm(acquisition, seed, pool, test, settings)
                yield from _go_on(arm, finished, journal, folder / STATE_FOLDER / f"{acquisition}-{seed}")


def _go_on(
    arm: Arm, finished: Sequence[RoundRecord], journal: Journal, folder: Path
) -> Iterator[RoundRecord]:
    """The rest of one arm. Its state is on disk before its line is: a line always has its state."""
    if finished:
        last = finished[-1]
        arm.load(folder, len(finished), last.fingerprint, last.new)
    for number in range(len(finished), arm.settings.rounds + 1):
        _sweep(folder, number)
        visits, dice, promoted = arm.run_round(number)
        arm.save(folder, number, visits)
        record = to_record(arm, number, visits, dice, promoted)
        journal.append(record)
        yield record


def to_record(arm: Arm, number: int, visits: Sequence[Visit], dice: float, promoted: bool) -> RoundRecord:
    """One line of the journal."""
    return RoundRecord(
        arm=arm.acquisition,
        seed=arm.seed,
        round=number,
        objects=sum(len(visit.objects) for visit in visits),
        units=sum(visit.n_units for visit in visits),
        effort=sum((visit.effort for visit in visits), Effort()),
        dice=dice,
        promoted=promoted,
        fingerprint=arm.model.fingerprint if arm.model is not None else None,
        new=tuple(arm.new_images),
        images=tuple(visit.image for visit in visits),
    )


def find_acquisitions(names: Sequence[str], known: Sequence[Acquisition]) -> tuple[Acquisition, ...]:
    """The acquisitions of these names, without doubles; raises `StudyError` for an unknown one."""
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise StudyError(f"no acquisition is called {', '.join(unknown)}; there are: {', '.join(known)}")
    return tuple(name for name in known if name in names)


def _claim(
    folder: Path, settings: StudySettings, pool: Sequence[KnownImage], test: Sequence[KnownImage]
) -> None:
    """Write down what this study is, or check that the folder holds the same one."""
    folder.mkdir(parents=True, exist_ok=True)
    record = json.loads(
        json.dumps(
            {**settings.to_record(), "pool": [i.name for i in pool], "test": [i.name for i in test]},
        )
    )
    path = folder / SETTINGS_FILE
    if not path.exists():
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    differs = sorted(key for key in {*before, *record} if before.get(key) != record.get(key))
    if differs:
        raise StudyError(f"{folder} holds a study with other {', '.join(differs)}; choose another --out")


def _sweep(folder: Path, number: int) -> None:
    """Remove what a killed round left, and the models that nobody goes on from."""
    for path in folder.glob("model-*"):
        if int(path.name.split("-")[1]) != number - 1:
            shutil.rmtree(path)
