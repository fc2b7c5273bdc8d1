"""The objects of a prediction: without specks and holes, touching ones apart, numbered, measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from core.objects.components import find_components
from core.objects.measure import (
    MIN_OBJECTS_TO_LEARN,
    ObjectLimits,
    clean_mask,
    count_labels,
    learn_limits,
)
from core.objects.split_blobs import Neck, split_touching
from core.painting import Mask
from core.prediction import Prediction
from core.schema import IGNORE_INDEX, LabelSchema

MOST_UNLIKE = 2.0
"""Objects of an image that differ more than this from the painted ones are errors of the prediction."""


def separated_objects(
    prediction: Prediction, schema: LabelSchema, limits: Sequence[ObjectLimits]
) -> NDArray[np.int32]:
    """Number the objects of a prediction: without specks and holes, touching ones apart.

    Parameters
    ----------
    prediction : Prediction
    schema : LabelSchema
        Of the model. Touching objects are separated only where it has a Background class.
    limits : ObjectLimits per class
        The defaults for classes beyond its end.

    Returns
    -------
    (H, W) int32
        0 where there is no object, 1..n one object each; numbers follow the classes.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.zeros((40, 60), np.uint8)
    >>> labels[5:25, 5:25] = labels[5:25, 35:55] = 1
    >>> ones = np.ones(labels.shape, np.float16)
    >>> maps = Prediction(labels, 1 - labels, ones, ones, ones, ones, ones)
    >>> int(separated_objects(maps, LabelSchema.of("Background", "Nucleus"), []).max())
    2
    """
    return numbered_objects(prediction, schema, limits)[0]


def numbered_objects(
    prediction: Prediction, schema: LabelSchema, limits: Sequence[ObjectLimits]
) -> tuple[NDArray[np.int32], tuple[int, ...]]:
    """The same, and the class index of object 1, 2, ...; see `separated_objects`."""
    instances = np.zeros(prediction.shape, np.int32)
    class_of: list[int] = []
    for index, mask in separated_masks(prediction, schema, limits):
        n_labels, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        np.copyto(instances, labels + len(class_of), where=mask)
        class_of += [index] * (n_labels - 1)
    return instances, tuple(class_of)


def object_size(prediction: Prediction, schema: LabelSchema, limits: Sequence[ObjectLimits]) -> float:
    """Return the typical diameter in pixels of the objects that an image shows.

    It is at most `MOST_UNLIKE` times larger or smaller than that of their classes in `limits`, which is what
    painted objects of the project have, and equal to it where the image shows fewer objects than
    `MIN_OBJECTS_TO_LEARN`. Arguments are those of `separated_objects`.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.zeros((60, 60), np.uint8)
    >>> labels[5:20, 5:20] = labels[5:20, 35:50] = labels[35:50, 5:20] = 1
    >>> ones = np.ones(labels.shape, np.float16)
    >>> maps = Prediction(labels, 1 - labels, ones, ones, ones, ones, ones)
    >>> round(object_size(maps, LabelSchema.of("Background", "Nucleus"), []), 1)
    16.9
    """
    masks = (mask for _, mask in separated_masks(prediction, schema, limits))
    areas_px = [area for mask in masks for area in find_components(mask).areas.tolist()]
    return typical_size(areas_px, prediction, schema, limits)


def separated_masks(
    prediction: Prediction, schema: LabelSchema, limits: Sequence[ObjectLimits]
) -> Iterator[tuple[int, Mask]]:
    """Yield each object class that is there, with a mask whose 8-connected components are its objects.

    Arguments are those of `separated_objects`.
    """
    for index, mask, _ in masks_and_necks(prediction, schema, limits):
        yield index, mask


def masks_and_necks(
    prediction: Prediction, schema: LabelSchema, limits: Sequence[ObjectLimits]
) -> Iterator[tuple[int, Mask, tuple[Neck, ...]]]:
    """The same, each with what may be one of its objects or two; see `core.objects.split_blobs`."""
    limits = _for_each_class(limits, schema)
    tidy = tidy_map(prediction.label_map, schema, limits)
    for index in _present(tidy, schema):
        mask: Mask = tidy == index
        necks: tuple[Neck, ...] = ()
        if schema.background_index is not None:
            diameter_px = limits[index].typical_diameter_px
            apart, necks = split_touching(mask, diameter_px, outline=prediction.outline)
            mask = clean_mask(apart, ObjectLimits(limits[index].min_object_px, max_hole_px=0))
        yield index, mask, necks


def typical_size(
    areas_px: Sequence[int], prediction: Prediction, schema: LabelSchema, limits: Sequence[ObjectLimits]
) -> float:
    """Typical diameter in pixels of objects with these areas; see `object_size` for too few of them."""
    limits = _for_each_class(limits, schema)
    present = _present(prediction.label_map, schema) or list(schema.object_indices)
    sizes = [limits[index].typical_diameter_px for index in present]
    of_project = float(np.median(sizes or [ObjectLimits().typical_diameter_px]))
    if len(areas_px) < MIN_OBJECTS_TO_LEARN:
        return of_project
    of_image = learn_limits([areas_px])[0].typical_diameter_px
    return min(max(of_image, of_project / MOST_UNLIKE), of_project * MOST_UNLIKE)


def tidy_map(
    label_map: NDArray[np.uint8], schema: LabelSchema, limits: Sequence[ObjectLimits]
) -> NDArray[np.uint8]:
    """Return the object classes of a predicted map without specks and holes, `IGNORE_INDEX` elsewhere.

    A hole is filled only where no other object is: objects inside others stay.
    """
    tidy = np.full(label_map.shape, IGNORE_INDEX, np.uint8)
    for index in _present(label_map, schema):
        kept = clean_mask(label_map == index, ObjectLimits(limits[index].min_object_px, max_hole_px=0))
        tidy[kept] = index
    for index in _present(tidy, schema):
        filled = clean_mask(tidy == index, ObjectLimits(1, limits[index].max_hole_px))
        filled &= tidy == IGNORE_INDEX
        tidy[filled] = index
    return tidy


def _for_each_class(limits: Sequence[ObjectLimits], schema: LabelSchema) -> tuple[ObjectLimits, ...]:
    """Add the defaults for classes that are newer than `limits`."""
    return tuple(limits[: len(schema)]) + (ObjectLimits(),) * (len(schema) - len(limits))


def _present(label_map: NDArray[np.uint8], schema: LabelSchema) -> list[int]:
    counts = count_labels(label_map)
    return [index for index in schema.object_indices if counts[index]]
