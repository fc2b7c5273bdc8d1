"""What a model's prediction becomes for the annotator: clean masks, questions, and one score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from core.acquisition import BY_CHANCE, DEFAULT_ACQUISITION, Acquisition
from core.components import Components, find_components
from core.objects import (
    MIN_OBJECTS_TO_LEARN,
    ObjectLimits,
    clean_mask,
    count_labels,
    learn_limits,
    separate_touching,
)
from core.painting import Box
from core.prediction import Prediction
from core.regions import Choice, Region, choose_regions, find_candidates, is_question
from core.schema import IGNORE_INDEX, LabelSchema
from core.truth import Mask

MAX_OBJECTS = 50
"""So many regions of objects Label Studio still shows and edits at ease."""


@dataclass(frozen=True)
class SuggestionSettings:
    """What is sent.

    `regions`: one mask per class, or one per object with at most `max_objects`. `ask_when_sure` asks for the
    least sure places in any case, for a model that nothing has checked: it may be wrongly sure. `acquisition`
    says which places are asked about.
    """

    regions: Literal["classes", "objects"] = "classes"
    send_background: bool = False
    max_questions: int = 5
    ask_when_sure: bool = False
    max_objects: int = MAX_OBJECTS
    acquisition: Acquisition = DEFAULT_ACQUISITION


@dataclass(frozen=True)
class SuggestedMask:
    """One region to send, cut to its box; `confidence` is the mean over its pixels, in 0..1."""

    class_index: int
    mask: Mask
    top: int
    left: int
    confidence: float

    @property
    def box(self) -> Box:
        return Box(self.top, self.left, *self.mask.shape)


@dataclass(frozen=True)
class Suggestion:
    """Everything to send for one image.

    `masks` of object classes never overlap. `score` is in 0..1, low = look here first.
    """

    shape: tuple[int, int]
    masks: tuple[SuggestedMask, ...]
    regions: tuple[Region, ...]
    score: float


def build_suggestion(
    prediction: Prediction,
    schema: LabelSchema,
    annotated: Mask,
    limits: Sequence[ObjectLimits],
    settings: SuggestionSettings | None = None,
    rng: np.random.Generator | None = None,
) -> Suggestion:
    """Turn a prediction into masks and questions.

    Parameters
    ----------
    prediction : Prediction
    schema : LabelSchema
        Of the model. Touching objects are separated only where it has a Background class.
    annotated : (H, W) bool
        Nothing is asked where something is known.
    limits : ObjectLimits per class
        The defaults for classes beyond its end.
    settings : SuggestionSettings, optional
    rng : numpy.random.Generator, optional
        Needed by acquisitions with chance.

    Returns
    -------
    Suggestion
        Its score is 1 minus the uncertainty of the worst region, whether it is asked about or not; with an
        acquisition by chance, of the worst one that was drawn.

    Raises
    ------
    ValueError
        An `rng` is missing, or details that the acquisition reads: see `core.acquisition.NEEDS_DETAILS`.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.zeros((60, 60), np.uint8)
    >>> labels[20:40, 20:40] = 1
    >>> zeros, ones = np.zeros((60, 60), np.float16), np.ones((60, 60), np.float16)
    >>> maps = Prediction(labels, 1 - labels, ones, zeros, zeros, zeros, ones)
    >>> schema = LabelSchema.of("Background", "Nucleus")
    >>> suggestion = build_suggestion(maps, schema, labels > 9, [])
    >>> [(m.class_index, m.box, m.confidence) for m in suggestion.masks], suggestion.score
    ([(1, Box(top=20, left=20, height=20, width=20), 1.0)], 1.0)
    """
    settings = settings or SuggestionSettings()
    known = _for_each_class(limits, schema)
    masks, areas_px = _object_masks(prediction, schema, known, settings)
    if settings.send_background and schema.background_index is not None:
        ground = prediction.label_map == schema.background_index
        masks = [*_cut(schema.background_index, ground, prediction), *masks]
    size_px = _typical_size(areas_px, prediction, schema, known)
    # The score needs the worst region even where it is no question: images are ranked by it.
    asked = settings.acquisition
    candidates = find_candidates(prediction, annotated, schema, size_px, asked, rng, even_sure=True)
    worst = max((region.acquisition_score for region in candidates), default=0.0)
    even_sure = settings.ask_when_sure or asked in BY_CHANCE
    questions = [region for region in candidates if even_sure or is_question(region)]
    order = choose_regions(questions, settings.max_questions, Choice(asked), rng)
    chosen = [questions[index] for index in order]
    if asked not in BY_CHANCE:
        chosen.sort(key=lambda region: -region.acquisition_score)
    return Suggestion(prediction.shape, tuple(masks), tuple(chosen), float(np.clip(1 - worst, 0, 1)))


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
    instances = np.zeros(prediction.shape, np.int32)
    n_before = 0
    for _, mask in _separated_masks(prediction, schema, _for_each_class(limits, schema)):
        n_labels, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        np.copyto(instances, labels + n_before, where=mask)
        n_before += n_labels - 1
    return instances


def object_size(prediction: Prediction, schema: LabelSchema, limits: Sequence[ObjectLimits]) -> float:
    """Return the typical diameter in pixels of the objects that an image shows.

    Where it shows fewer than `MIN_OBJECTS_TO_LEARN`, it is that of their classes in `limits`, of all classes
    where it shows none. Arguments are those of `separated_objects`.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.zeros((60, 60), np.uint8)
    >>> labels[5:15, 5:15] = labels[5:15, 25:35] = labels[35:45, 5:15] = 1
    >>> ones = np.ones(labels.shape, np.float16)
    >>> maps = Prediction(labels, 1 - labels, ones, ones, ones, ones, ones)
    >>> round(object_size(maps, LabelSchema.of("Background", "Nucleus"), []), 1)
    11.3
    """
    known = _for_each_class(limits, schema)
    masks = (mask for _, mask in _separated_masks(prediction, schema, known))
    areas_px = [area for mask in masks for area in find_components(mask).areas.tolist()]
    return _typical_size(areas_px, prediction, schema, known)


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


def _present(label_map: NDArray[np.uint8], schema: LabelSchema) -> list[int]:
    counts = count_labels(label_map)
    return [index for index in schema.object_indices if counts[index]]


def _for_each_class(limits: Sequence[ObjectLimits], schema: LabelSchema) -> tuple[ObjectLimits, ...]:
    """Add the defaults for classes that are newer than `limits`."""
    return tuple(limits[: len(schema)]) + (ObjectLimits(),) * (len(schema) - len(limits))


def _separated_masks(
    prediction: Prediction, schema: LabelSchema, limits: Sequence[ObjectLimits]
) -> Iterator[tuple[int, Mask]]:
    """Yield each object class that is there, with a mask whose 8-connected components are its objects."""
    tidy = tidy_map(prediction.label_map, schema, limits)
    for index in _present(tidy, schema):
        mask: Mask = tidy == index
        if schema.background_index is not None:
            diameter_px = limits[index].typical_diameter_px
            apart = separate_touching(mask, diameter_px, outline=prediction.outline)
            mask = clean_mask(apart, ObjectLimits(limits[index].min_object_px, max_hole_px=0))
        yield index, mask


def _object_masks(
    prediction: Prediction, schema: LabelSchema, limits: Sequence[ObjectLimits], settings: SuggestionSettings
) -> tuple[list[SuggestedMask], list[int]]:
    """Cut out what is sent; and measure every object of the image in pixels, sent or not."""
    masks: list[SuggestedMask] = []
    areas_px: list[int] = []
    for index, mask in _separated_masks(prediction, schema, limits):
        found = find_components(mask)
        areas_px += found.areas.tolist()
        if settings.regions == "classes":
            masks += _cut(index, mask, prediction)
        else:
            masks += _cut_objects(index, found, prediction, settings.max_objects)
    if settings.regions == "objects":
        masks = sorted(masks, key=_weight, reverse=True)[: settings.max_objects]
    return masks, areas_px


def _weight(mask: SuggestedMask) -> float:
    """Large and sure objects first: the pixels that are probably right."""
    return mask.confidence * float(np.count_nonzero(mask.mask))


def _cut(class_index: int, mask: Mask, prediction: Prediction) -> Iterator[SuggestedMask]:
    """Yield `mask` cut to the box it fills; nothing when it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return
    top, left = int(rows[0]), int(columns[0])
    box = slice(top, int(rows[-1]) + 1), slice(left, int(columns[-1]) + 1)
    yield _suggested(class_index, mask[box].copy(), top, left, prediction)


def _cut_objects(
    class_index: int, found: Components, prediction: Prediction, max_objects: int
) -> Iterator[SuggestedMask]:
    # Sizes differ far more than confidences: the chosen ones are among the largest few hundred.
    by_size = np.argsort(-found.areas, kind="stable")[: 4 * max_objects]
    is_large = np.zeros(len(found), bool)
    is_large[by_size] = True
    cut = {number - 1: (box, pixels) for number, box, pixels in found.cut_out(is_large)}
    for index in by_size:
        (rows, columns), pixels = cut[int(index)]
        yield _suggested(class_index, pixels, rows.start, columns.start, prediction)


def _suggested(class_index: int, mask: Mask, top: int, left: int, prediction: Prediction) -> SuggestedMask:
    height, width = mask.shape
    confidence = prediction.confidence[top : top + height, left : left + width][mask]
    return SuggestedMask(
        class_index, mask, top, left, float(np.clip(confidence.mean(dtype=np.float64), 0, 1))
    )


def _typical_size(
    areas_px: Sequence[int], prediction: Prediction, schema: LabelSchema, limits: Sequence[ObjectLimits]
) -> float:
    if len(areas_px) >= MIN_OBJECTS_TO_LEARN:
        return learn_limits([areas_px])[0].typical_diameter_px
    present = _present(prediction.label_map, schema) or list(schema.object_indices)
    sizes = [limits[index].typical_diameter_px for index in present]
    return float(np.median(sizes or [ObjectLimits().typical_diameter_px]))
