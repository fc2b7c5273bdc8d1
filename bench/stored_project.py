"""An annotated project on disk as the service stores it: one file per image, one per task's label maps."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.annotator import OBJECTS_PER_IMAGE, SCHEMA, LabelledImage, paint
from bench.peers import N_THREADS
from core.rounds import RoundSettings
from core.synthetic import make_image
from core.truth.holdout import split, summarise
from ml_backend.rounds.round_process import train_here
from ml_backend.training import StoredExample, TrainedRound, TrainingSpec

N_DIFFERENT = 40
"""Images that are really drawn; further tasks hold copies, in files of their own."""

PROJECT_ID = 1


class MappedImages:
    """Implements `ports.ImageSource` as the service's cache of decoded images does: by memory maps."""

    def open(self, project_id: int, task_id: int, data: Mapping[str, Any]) -> NDArray[Any]:
        found: NDArray[Any] = np.load(data["image"], mmap_mode="r")
        return found

    def shape(self, project_id: int, task_id: int, data: Mapping[str, Any]) -> tuple[int, int]:
        height, width = self.open(project_id, task_id, data).shape[:2]
        return height, width


def write_project(folder: Path, n_tasks: int, seed: int = 0, side_px: int = 256) -> tuple[StoredExample, ...]:
    """Draw images, paint some objects in each, and store `n_tasks` of them."""
    rng = np.random.default_rng(seed)
    drawn = [
        LabelledImage(f"{i}", *make_image("fluorescence", rng, (side_px, side_px)))
        for i in range(min(n_tasks, N_DIFFERENT))
    ]
    painted = paint(drawn, OBJECTS_PER_IMAGE * len(drawn), rng)
    return tuple(
        _store(
            folder, task_id, painted[task_id % len(painted)].image, painted[task_id % len(painted)].label_map
        )
        for task_id in range(n_tasks)
    )


def _store(folder: Path, task_id: int, image: NDArray[Any], label_map: NDArray[np.uint8]) -> StoredExample:
    train_map, held_out_map = split(label_map, SCHEMA, str(task_id))
    image_path, maps_path = folder / f"{task_id}-image.npy", folder / f"{task_id}-maps.npy"
    np.save(image_path, image)
    np.save(maps_path, np.stack([label_map, train_map, held_out_map]))
    summary = summarise(str(task_id), train_map, held_out_map, SCHEMA, is_new=True)
    return StoredExample(summary, maps_path, PROJECT_ID, task_id, {"image": str(image_path)})


def mark_new(examples: Sequence[StoredExample], first_new: int) -> tuple[StoredExample, ...]:
    """The same tasks; only those from `first_new` on are news to the current model."""
    return tuple(
        replace(example, summary=replace(example.summary, is_new=number >= first_new))
        for number, example in enumerate(examples)
    )


def run_round(
    examples: Sequence[StoredExample], start: Path | None, output: Path, n_steps: int, seed: int = 0
) -> tuple[TrainedRound, float]:
    """Carry out one specification as the training process does; returns the seconds it took too."""
    settings = RoundSettings(max_steps=n_steps, n_threads=N_THREADS, seed=seed)
    spec = TrainingSpec(SCHEMA, tuple(examples), start, output, settings, now=0.0)
    began = time.perf_counter()
    trained = train_here(spec, MappedImages(), lambda done, eta_s: None, lambda: False)
    return trained, time.perf_counter() - began
