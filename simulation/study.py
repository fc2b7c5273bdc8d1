"""Run a study: every arm with every seed, round after round; what is finished is not done again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from simulation.acquisitions import Acquisition
from simulation.arm import Arm, FinishedRound
from simulation.ground_truth import KnownImage, StudyError
from simulation.journal import Journal, RoundRecord
from simulation.local_learner import LocalLearner
from simulation.settings import StudySettings

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
                learner = LocalLearner(acquisition, seed, pool, test, settings)
                state = folder / STATE_FOLDER / f"{acquisition}-{seed}"
                yield from _go_on(learner, finished, journal, state)


def _go_on(
    learner: LocalLearner, finished: Sequence[RoundRecord], journal: Journal, folder: Path
) -> Iterator[RoundRecord]:
    """The rest of one arm. Its state is on disk before its line is: a line always has its state."""
    settings = learner.settings
    arm = Arm(
        learner.acquisition,
        learner.seed,
        {name: image.truth for name, image in learner.pool.items()},
        learner,
        objects_per_round=settings.objects_per_round,
        noise=settings.noise,
    )
    if finished:
        last = finished[-1]
        arm.visits += learner.load(folder, len(finished), last.fingerprint, last.new)
    for number in range(len(finished), settings.rounds + 1):
        _sweep(folder, number)
        done = arm.run_round(number)
        learner.save(folder, number, done.visits)
        record = to_record(learner, done)
        journal.append(record)
        yield record


def to_record(learner: LocalLearner, done: FinishedRound) -> RoundRecord:
    """One line of the journal."""
    return RoundRecord(
        arm=learner.acquisition,
        seed=learner.seed,
        round=done.number,
        objects=done.n_objects,
        units=done.n_units,
        effort=done.effort,
        dice=done.dice,
        promoted=done.promoted,
        fingerprint=learner.model.fingerprint if learner.model is not None else None,
        new=tuple(learner.new_images),
        images=tuple(visit.image for visit in done.visits),
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
        # The model before stays: the round that begins now goes on from it.
        if int(path.name.split("-")[1]) != number - 1:
            shutil.rmtree(path)
