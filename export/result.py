"""What is known of one image, from people, from a model, or from both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.schema import IGNORE_INDEX, LabelSchema


@dataclass(frozen=True)
class Result:
    """One image's label map.

    Attributes
    ----------
    name : its files are called so
    file_name : of the image itself
    label_map : (H, W) uint8, class indices, 255 where nobody labelled
    load_image : gives (H, W, C) uint8 or uint16
    task : `id` and `data` as Label Studio has them; empty for images that do not come from there
    """

    name: str
    file_name: str
    label_map: NDArray[np.uint8]
    load_image: Callable[[], NDArray[Any]]
    task: Mapping[str, Any] = field(default_factory=dict)


def number_objects(
    label_map: NDArray[np.uint8], schema: LabelSchema
) -> tuple[NDArray[np.int32], tuple[int, ...]]:
    """Number the connected pixels of each object class, corners included, and tell the class of each number.

    Painted objects that touch are kept apart by a line of Background already, see `core.objects.keep_apart`.

    >>> labels = np.array([[1, 0, 1], [0, 255, 1]], np.uint8)
    >>> objects, class_of = number_objects(labels, LabelSchema.of("Background", "Nucleus"))
    >>> objects.tolist(), class_of
    ([[1, 0, 2], [0, 0, 2]], (1, 1))
    """
    objects = np.zeros(label_map.shape, np.int32)
    class_of: list[int] = []
    for index in schema.object_indices:
        mask = label_map == index
        n_labels, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        np.copyto(objects, labels + len(class_of), where=mask)
        class_of += [index] * (n_labels - 1)
    return objects, tuple(class_of)


def truth_over_prediction(
    truth: NDArray[np.uint8] | None, predicted: NDArray[np.uint8] | None
) -> NDArray[np.uint8] | None:
    """What people said, and elsewhere what the model says; None where neither is there.

    >>> truth_over_prediction(np.array([[255, 1]], np.uint8), np.array([[0, 0]], np.uint8)).tolist()
    [[0, 1]]
    """
    if truth is None or predicted is None:
        return predicted if truth is None else truth
    return np.where(truth == IGNORE_INDEX, predicted, truth)
