"""Large images: memory and time of a prediction, up to 10,000 x 10,000 pixels, and of what is sent for it.

Each size runs in a new process, on an image that is a memory map, as the service's cache holds it. What
counts is the most memory that was ever resident, mapped pages of the image included.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import Figures, Goal
from bench.fresh_process import own_peak_bytes, run_fresh
from bench.learner_settings import Bench, PartResult
from bench.peers import AUGMENTED, N_LOOKS, N_THREADS, PLAIN
from bench.stored_project import mark_new, run_round, write_project
from core.asking.suggestion import build_suggestion
from core.network.checkpoint import load_checkpoint
from core.network.predict import Predictor
from core.rle import warm_up
from core.synthetic import make_image
from ml_backend.label_studio.label_config import parse_label_config
from ml_backend.label_studio.results import to_prediction

SIDES_PX = (2500, 5000, 10_000)
TILE_PX = 500
"""The image is a generated one of this side, again and again."""

N_TASKS, STEPS = 20, 100
"""Of the model that looks: enough to find the objects, so that there is something to send."""

MAX_GIB = 2.5
MAX_TIME_RATIO = 1.2
"""Seconds per pixel at the largest side against the smallest, for `linear in pixels`."""

CONFIG = Path(__file__).parents[1] / "ml_backend" / "label_config.xml"


def measure_memory(bench: Bench, sides_px: Sequence[int] = SIDES_PX) -> PartResult:
    steps = bench.settings.max_steps or STEPS
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as name:
        folder = Path(name)
        for side_px, mode in [(sides_px[0], AUGMENTED), *((side, PLAIN) for side in sides_px)]:
            about = {"part": "memory", "side_px": side_px, "mode": mode, "train_steps": steps}
            one = bench.measure_ours(about, 0, partial(_measure, folder, side_px, mode, steps))
            found.append({"side_px": side_px, "mode": mode, **one})
    return _report(found)


def _measure(folder: Path, side_px: int, mode: str, n_steps: int) -> dict[str, Any]:
    model = folder / "model"
    if not model.exists():
        run_fresh(_train, folder, model, n_steps)
    path = folder / f"{side_px}.npy"
    if not path.exists():
        _write_image(path, side_px)
    return run_fresh(_predict, model, path, mode)


def _train(folder: Path, model: Path, n_steps: int) -> dict[str, Any]:
    run_round(mark_new(write_project(folder, N_TASKS), 0), None, model, n_steps)
    return {}


def _write_image(path: Path, side_px: int) -> None:
    tile, _ = make_image("fluorescence", np.random.default_rng(0), (TILE_PX, TILE_PX))
    image = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
        path, "w+", np.uint8, (side_px, side_px, 1)
    )
    for top in range(0, side_px, TILE_PX):
        for left in range(0, side_px, TILE_PX):
            place = image[top : top + TILE_PX, left : left + TILE_PX]
            place[...] = tile[: place.shape[0], : place.shape[1]]
    image.flush()


def _predict(model: Path, image_path: Path, mode: str) -> dict[str, Any]:
    """Predict, then make what the service sends; the peak is read after each."""
    checkpoint = load_checkpoint(model)
    config = parse_label_config(CONFIG.read_text(encoding="utf-8"))
    predictor = Predictor(checkpoint, N_THREADS)
    image = np.load(image_path, mmap_mode="r")
    warm_up()
    predictor.predict(image[:TILE_PX, :TILE_PX], n_augmentations=1)
    began = time.perf_counter()
    prediction = predictor.predict(image, n_augmentations=N_LOOKS[mode], keep_details=False)
    predicted, predict_peak = time.perf_counter(), own_peak_bytes()
    nothing = np.zeros(prediction.shape, bool)
    suggestion = build_suggestion(prediction, checkpoint.schema, nothing, checkpoint.limits)
    answer, _ = to_prediction(suggestion, config, "v1", "1")
    return {
        "predict_s": predicted - began,
        "predict_peak_bytes": predict_peak,
        "suggest_s": time.perf_counter() - predicted,
        "regions": len(answer["result"]),
        "questions": len(suggestion.regions),
    }


def _report(found: Sequence[dict[str, Any]]) -> PartResult:
    rows = tuple(
        (
            one["side_px"],
            N_LOOKS[one["mode"]],
            one["predict_s"],
            one["predict_s"] / _megapixels(one),
            one["predict_peak_bytes"] / 2**30,
            one["suggest_s"],
            one["peak_bytes"] / 2**30,
            one["regions"],
        )
        for one in found
    )
    plain = [one for one in found if one["mode"] == PLAIN]
    smallest, largest = plain[0], plain[-1]
    peak = largest["predict_peak_bytes"] / 2**30
    whole = largest["peak_bytes"] / 2**30
    speeds = [one["predict_s"] / _megapixels(one) for one in (smallest, largest)]
    ratio, side = speeds[1] / speeds[0], largest["side_px"]
    goals = (
        Goal(f"{side} px: prediction takes {peak:.2f} GiB, allowed {MAX_GIB}", peak <= MAX_GIB),
        Goal(f"{side} px: with masks and questions {whole:.2f} GiB, allowed {MAX_GIB}", whole <= MAX_GIB),
        Goal(
            f"{side} px against {smallest['side_px']}: {ratio:.2f} x the time per pixel, "
            f"allowed {MAX_TIME_RATIO} x",
            ratio <= MAX_TIME_RATIO,
        ),
    )
    columns = (
        "side px",
        "looks",
        "predict s",
        "s/Mpx",
        "GiB",
        "masks + questions s",
        "GiB with them",
        "regions",
    )
    record = {"sizes": list(found), "peak_gib": peak, "whole_peak_gib": whole, "time_ratio": ratio}
    return PartResult((Figures("Large images", columns, rows),), goals, record)


def _megapixels(one: dict[str, Any]) -> float:
    return float(one["side_px"]) ** 2 / 1e6
