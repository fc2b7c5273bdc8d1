"""A simulated annotator: paints some objects whole and some background around them, and leaves the rest.

It sees the dense truth of an image and gives back a partial label map by the rules of partial annotation:
objects to their exact border, a band of Background around each, never over an object that it did not
paint, and one free Background stroke per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.schema import IGNORE_INDEX, LabelSchema
from core.synthetic import Kind, make_image

SCHEMA = LabelSchema.of("Background", "Nucleus")
BACKGROUND, OBJECT = 0, 1

OBJECTS_PER_IMAGE = 3
"""People paint a few objects and go on to the next image."""

BAND_PX = (6, 14)
"""Width of the Background band around a painted object, drawn per object."""

STROKE_PX = (5, 9)
"""Radius of the free Background stroke."""


@dataclass(frozen=True)
class LabelledImage:
    """An image with dense truth. `instances` is `(H, W)` int32, 0 = background.

    Negative numbers are things of another class: neither painted nor background.
    """

    name: str
    image: NDArray[Any]
    instances: NDArray[np.int32]


@dataclass(frozen=True)
class PaintedImage:
    """An image with a partial label map `(H, W)` uint8 and the number of whole objects in it."""

    name: str
    image: NDArray[Any]
    label_map: NDArray[np.uint8]
    n_objects: int


def load_images(folder: Path) -> list[LabelledImage]:
    """Read every `NAME.png` with its 16-bit `NAME_instances.png`; grey images get one channel."""
    found = []
    for path in sorted(folder.glob("*.png")):
        if path.stem.endswith("_instances"):
            continue
        image = _read(path)
        if image.ndim == 3 and (image == image[..., :1]).all():
            image = image[..., :1]
        instances = _read(path.with_name(f"{path.stem}_instances.png"))
        found.append(LabelledImage(path.stem, np.atleast_3d(image), instances.astype(np.int32)))
    if not found:
        raise FileNotFoundError(f"no NAME.png with NAME_instances.png in {folder}")
    return found


def _read(path: Path) -> NDArray[Any]:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise FileNotFoundError(f"cannot read {path}")
    return np.ascontiguousarray(image[..., 2::-1]) if image.ndim == 3 else np.asarray(image)


def load_sets(data: Path | None, seed: int = 0) -> dict[str, dict[str, list[LabelledImage]]]:
    """Return `{set: {"pool": [...], "test": [...]}}` from `data`, or from the generator without it.

    Raises
    ------
    FileNotFoundError
        No folder in `data` has a `pool` and a `test`.
    """
    if data is not None:
        found = {
            folder.name: {part: load_images(folder / part) for part in ("pool", "test")}
            for folder in sorted(data.iterdir())
            if (folder / "pool").is_dir() and (folder / "test").is_dir()
        }
        if not found:
            raise FileNotFoundError(
                f"no folder in {data} has the folders pool and test: name what holds the sets"
            )
        return found
    rng = np.random.default_rng(seed)
    kinds: tuple[Kind, ...] = ("fluorescence", "tissue")
    return {kind: {"pool": _generate(kind, 30, rng), "test": _generate(kind, 10, rng)} for kind in kinds}


def _generate(kind: Kind, n: int, rng: np.random.Generator) -> list[LabelledImage]:
    return [LabelledImage(f"{kind}-{i:03d}", *make_image(kind, rng)) for i in range(n)]


def paint(
    images: Sequence[LabelledImage],
    n_objects: int,
    rng: np.random.Generator,
    objects_per_image: int = OBJECTS_PER_IMAGE,
) -> list[PaintedImage]:
    """Paint `n_objects` whole objects in as many images as that takes, in random order.

    When every image has been visited once, a further visit adds other objects to the same image.
    """
    painted: dict[str, set[int]] = {}
    order = [images[i] for i in rng.permutation(len(images))]
    left = n_objects
    while left:
        before = left
        for labelled in order:
            done = painted.setdefault(labelled.name, set())
            free = np.setdiff1d(np.unique(labelled.instances), [0, *done])
            chosen = rng.permutation(free[free > 0])[: min(objects_per_image, left)]
            done.update(int(i) for i in chosen)
            left -= len(chosen)
            if not left:
                break
        if left == before:
            raise ValueError(f"{n_objects} objects wanted, only {n_objects - left} in {len(images)} images")
    return [
        PaintedImage(labelled.name, labelled.image, _label_map(labelled, chosen, rng), len(chosen))
        for labelled, chosen in ((labelled, painted.get(labelled.name, set())) for labelled in order)
        if chosen
    ]


def to_label_map(truth: NDArray[np.int32]) -> tuple[NDArray[np.uint8], int]:
    """The label map of somebody who painted everything, and the number of objects in it."""
    label_map = np.where(truth > 0, OBJECT, np.where(truth < 0, IGNORE_INDEX, BACKGROUND)).astype(np.uint8)
    label_map[_touches_another(truth, truth > 0)] = BACKGROUND
    return label_map, len(np.unique(truth[truth > 0]))


def _label_map(labelled: LabelledImage, chosen: set[int], rng: np.random.Generator) -> NDArray[np.uint8]:
    truth = labelled.instances
    label_map = np.full(truth.shape, IGNORE_INDEX, np.uint8)
    for instance in sorted(chosen):
        reach = 2 * int(rng.integers(*BAND_PX)) + 1
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
        near = cv2.dilate((truth == instance).astype(np.uint8), disc) > 0
        label_map[near & (truth == 0)] = BACKGROUND
    label_map[_stroke(truth.shape, rng) & (truth == 0)] = BACKGROUND
    painted = np.isin(truth, list(chosen))
    label_map[painted] = OBJECT
    label_map[painted & _touches_another(truth, painted)] = BACKGROUND
    return label_map


def _stroke(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    """One straight brush stroke of up to a third of the image's diagonal."""
    canvas = np.zeros(shape, np.uint8)
    start = rng.uniform((0, 0), shape)
    end = start + rng.uniform(-1, 1, 2) * np.asarray(shape) / 3
    ends = [(int(column), int(row)) for row, column in (start, end)]
    cv2.line(canvas, ends[0], ends[1], 1, 2 * int(rng.integers(*STROKE_PX)) + 1)
    return np.asarray(canvas > 0)


def _touches_another(truth: NDArray[np.int32], painted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a painted object that touch another painted object with a smaller number."""
    touching = np.zeros(truth.shape, bool)
    only = np.where(painted, truth, 0)
    padded = np.pad(only, 1)
    height, width = truth.shape
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            other = padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]
            touching |= (other > 0) & (other < only)
    return touching
