"""Simulated annotation errors: shifted outlines, missed objects, wrong classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from core.painting import Mask
from core.schema import LabelSchema

WOBBLE_PX = 8.0
"""Wavelength of the outline error of a noisy hand."""


@dataclass(frozen=True)
class Noise:
    """Size of the errors: outlines in px (standard deviation), objects as shares of all objects."""

    edge_px: float = 0.0
    missed_share: float = 0.0
    wrong_class_share: float = 0.0


NOISE_LEVELS: dict[str, Noise] = {
    "none": Noise(),
    "medium": Noise(1.0, 0.02, 0.02),
    "heavy": Noise(2.0, 0.05, 0.05),
}


@dataclass(frozen=True)
class DenseTruth:
    """What is in an image: `instances` is `(H, W)` int32, 0 where no object is; `class_of` knows each."""

    instances: NDArray[np.int32]
    class_of: Mapping[int, int]

    @classmethod
    def of_one_class(cls, instances: NDArray[np.int32], class_index: int) -> DenseTruth:
        return cls(instances, {int(i): class_index for i in np.unique(instances) if i > 0})

    def class_mask(self, class_index: int) -> Mask:
        """`(H, W)` bool: where objects of a class are."""
        return np.isin(self.instances, [i for i, found in self.class_of.items() if found == class_index])

    def to_label_map(self, schema: LabelSchema) -> NDArray[np.uint8]:
        """`(H, W)` uint8 with Background, or the first class without one, where no object is."""
        found = np.full(self.instances.shape, schema.background_index or 0, np.uint8)
        for class_index in sorted(set(self.class_of.values())):
            found[self.class_mask(class_index)] = class_index
        return found


def perceive(truth: DenseTruth, schema: LabelSchema, noise: Noise, rng: np.random.Generator) -> DenseTruth:
    """Apply annotation errors to the dense truth; call it once per person and image.

    Outlines are moved smoothly, some objects are not seen, and some get another class of objects, or are
    taken for Background where there is no other.

    Examples
    --------
    >>> truth = DenseTruth.of_one_class(np.array([[0, 1, 2]], np.int32), 1)
    >>> schema, rng = LabelSchema.of("Background", "Nucleus"), np.random.default_rng(0)
    >>> perceive(truth, schema, Noise(missed_share=1.0), rng).instances.tolist()
    [[0, 0, 0]]
    """
    instances = _wobble(truth.instances, noise.edge_px, rng) if noise.edge_px else truth.instances
    class_of: dict[int, int] = {}
    for number, class_index in truth.class_of.items():
        missed, wrong = rng.random() < noise.missed_share, rng.random() < noise.wrong_class_share
        others = [index for index in schema.object_indices if index != class_index]
        if missed or (wrong and not others):
            continue
        class_of[number] = int(rng.choice(others)) if wrong else class_index
    seen = np.where(np.isin(instances, list(class_of)), instances, 0).astype(np.int32)
    return DenseTruth(seen, class_of)


def _wobble(instances: NDArray[np.int32], edge_px: float, rng: np.random.Generator) -> NDArray[np.int32]:
    """Move everything by a smooth random field with a standard deviation of `edge_px` along each axis."""
    height, width = instances.shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    shifts = []
    for _ in range(2):
        waves = cv2.GaussianBlur(rng.standard_normal((height, width)).astype(np.float32), (0, 0), WOBBLE_PX)
        shifts.append(edge_px * waves / max(float(waves.std()), 1e-9))
    moved = cv2.remap(
        instances.astype(np.float32),  # exact up to 16 million objects
        columns + shifts[0].astype(np.float32),
        rows + shifts[1].astype(np.float32),
        cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(moved, np.int32)
