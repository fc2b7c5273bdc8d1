"""Brush streams: this codec against label-studio-sdk and label-studio-brush-rle-rs, on browser-like masks."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import label_studio_brush_rle_rs as rust
import numpy as np
from label_studio_sdk.converter import brush as sdk
from numpy.typing import NDArray

from bench import BenchmarkResult, Goal, Options
from core import rle

Mask = NDArray[np.uint8]

OBJECTS_PER_PX = 600 / 2048**2
RADIUS_PX = (12.0, 28.0)
N_CORNERS = 24
SUBPIXEL_BITS = 4
"""Corners of an outline lie on sixteenths of a pixel."""

SEED = 7
N_CHANNELS, WORD_BITS, RUN_SIZES = 4, 8, [3, 4, 8, 16]

GOALS = {"decode": {"sdk": 200.0, "rust": 3.0}, "encode": {"sdk": 20.0}}
"""How many times faster than another codec this one has to be, on the soft mask of `GOAL_SIDE_PX`."""
GOAL_SIDE_PX = 2048


@dataclass(frozen=True)
class Case:
    kind: str
    side_px: int
    repeats: int

    @property
    def line_type(self) -> int:
        return cv2.LINE_AA if self.kind == "soft" else cv2.LINE_8


CASES = (Case("soft", 512, 15), Case("hard", 2048, 9), Case("soft", 2048, 9), Case("soft", 4096, 3))


def paint(case: Case) -> Mask:
    """`(side, side)` uint8: filled blobs; their edges are anti-aliased, as a canvas draws them, or hard."""
    rng = np.random.default_rng(SEED)
    mask: Mask = np.zeros((case.side_px, case.side_px), np.uint8)
    angles = np.linspace(0, 2 * np.pi, N_CORNERS, endpoint=False)
    around = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for _ in range(round(OBJECTS_PER_PX * mask.size)):
        centre = rng.uniform(0, case.side_px, 2)
        outline = centre + around * rng.uniform(*RADIUS_PX) * rng.uniform(0.8, 1.2, (N_CORNERS, 1))
        corners = np.round(outline * (1 << SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillPoly(mask, [corners], (255,), case.line_type, SUBPIXEL_BITS)
    return mask


def decoders(shape: tuple[int, int]) -> dict[str, Callable[[list[int]], Mask]]:
    """List of integers to alpha, each in the way its own documentation shows."""

    def alpha_of(values: NDArray[Any]) -> Mask:
        return np.reshape(values, (*shape, N_CHANNELS))[:, :, 3]

    return {
        "ours": lambda stream: rle.decode(stream, shape),
        "sdk": lambda stream: alpha_of(sdk.decode_rle(stream)),
        "rust": lambda stream: alpha_of(np.asarray(rust.decode_rle(stream, False))),
        "ours, box": lambda stream: rle.decode_box(stream, shape)[2],
    }


def encoders() -> dict[str, Callable[[Mask], list[int]]]:
    return {
        "ours": rle.encode,
        "sdk": sdk.mask2rle,
        "rust": lambda mask: rust.encode_rle(np.repeat(mask.ravel(), N_CHANNELS), WORD_BITS, RUN_SIZES),
    }


def median_ms(ways: dict[str, Callable[[Any], Any]], given: Any, repeats: int) -> dict[str, float]:
    """Median time of each way; they take turns, so that whatever else the machine does hits them alike."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            began = time.perf_counter()
            way(given)
            times[name].append((time.perf_counter() - began) * 1000)
    return {name: statistics.median(taken) for name, taken in times.items()}


def check_equal(mask: Mask, stream: list[int]) -> None:
    """All codecs have to do the same work, or the comparison is worth nothing."""
    for name, decode in decoders((mask.shape[0], mask.shape[1])).items():
        if name != "ours, box" and not np.array_equal(decode(stream), mask):
            raise ValueError(f"{name} decodes to another mask")
    for name, encode in encoders().items():
        # The other two write one zero byte more when the stream ends on a byte.
        if list(encode(mask)) not in (stream, [*stream, 0]):
            raise ValueError(f"{name} encodes to other bytes")


def measure(case: Case) -> dict[str, Any]:
    mask = paint(case)
    stream: list[int] = json.loads(json.dumps(rle.encode(mask)))
    check_equal(mask, stream)
    painted = np.count_nonzero(mask)
    return {
        "kind": case.kind,
        "side_px": case.side_px,
        "stream_bytes": len(stream),
        "soft_share": round(1 - np.count_nonzero(mask == 255) / painted, 4),
        "repeats": case.repeats,
        "decode_ms": median_ms(decoders((case.side_px, case.side_px)), stream, case.repeats),
        "encode_ms": median_ms(encoders(), mask, case.repeats),
    }


def to_rows(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    rows = []
    for verb in ("decode", "encode"):
        ms = found[f"{verb}_ms"]
        label = f"{found['kind']} {found['side_px']}"
        box = ms.get("ours, box", "")
        faster = (round(ms["sdk"] / ms["ours"], 1), round(ms["rust"] / ms["ours"], 1))
        rows.append((verb, label, found["stream_bytes"], ms["ours"], box, ms["sdk"], ms["rust"], *faster))
    return rows


def to_goals(found: dict[str, Any]) -> list[Goal]:
    goals = []
    for verb, wanted in GOALS.items():
        ms = found[f"{verb}_ms"]
        for other, times in wanted.items():
            faster = ms[other] / ms["ours"]
            text = f"{verb} at {GOAL_SIDE_PX} px, soft: {faster:.1f} x {other}, wanted {times:g} x"
            goals.append(Goal(text, faster >= times))
    return goals


def run(options: Options) -> BenchmarkResult:
    rle.warm_up()
    found = [measure(case) for case in CASES]
    [judged] = [one for one in found if one["kind"] == "soft" and one["side_px"] == GOAL_SIDE_PX]
    return BenchmarkResult(
        title="Brush streams: median milliseconds from list to mask and back",
        columns=("", "mask, px", "bytes", "ours", "box", "sdk", "rust", "sdk / ours", "rust / ours"),
        rows=tuple(row for one in found for row in to_rows(one)),
        record={"cases": found},
        goals=tuple(to_goals(judged)),
        notes=("All three decode to the same masks and encode to the same bytes, but for a last zero.",),
    )
