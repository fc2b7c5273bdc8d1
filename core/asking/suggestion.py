"""What a model's prediction becomes for the annotator: clean masks, questions, and one score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from core.asking.object_questions import object_questions
from core.asking.regions import Region, find_candidates, is_question, set_apart
from core.objects.components import Components, find_components
from core.objects.measure import ObjectLimits
from core.objects.of_prediction import masks_and_necks, typical_size
from core.objects.split_blobs import Neck
from core.painting import Box, Mask, filled_box
from core.prediction import Prediction
from core.schema import LabelSchema

MAX_OBJECTS = 50
"""Label Studio shows and edits up to so many regions smoothly."""

MAX_OBJECT_QUESTIONS = 2
"""Of the questions of an image, so many may be whether something is one object or two."""


@dataclass(frozen=True)
class SuggestionSettings:
    """What is sent.

    `regions`: one mask per class, or one per object with at most `max_objects`. `ask_when_sure` asks for the
    least sure places in any case, for a model that nothing has checked: it may be wrongly sure.
    """

    regions: Literal["classes", "objects"] = "classes"
    send_background: bool = False
    max_questions: int = 5
    ask_when_sure: bool = False
    max_objects: int = MAX_OBJECTS


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
    disputed: Sequence[Region] = (),
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
    disputed : sequence of Region
        Places where people differ: asked about before all others. Then come objects that may be two.

    Returns
    -------
    Suggestion
        Its score is 1 minus the uncertainty of the worst region, whether it is asked about or not.

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
    masks, areas_px, necks = _object_masks(prediction, schema, limits, settings)
    # Background first: Label Studio draws later regions over earlier ones.
    ground_index = schema.background_index
    if settings.send_background and ground_index is not None and schema.classes[ground_index].is_painted:
        ground = prediction.label_map == ground_index
        masks = [*_cut(ground_index, ground, prediction), *masks]
    size_px = typical_size(areas_px, prediction, schema, limits)
    # The score needs the worst region even where it is no question: images are ranked by it.
    candidates = find_candidates(prediction, annotated, schema, size_px, even_sure=True)
    worst = max((region.acquisition_score for region in candidates), default=0.0)
    questions = [region for region in candidates if settings.ask_when_sure or is_question(region)]
    asked = tuple(disputed[: settings.max_questions])
    doubtful = object_questions(necks, annotated)
    for group, most in ((doubtful, MAX_OBJECT_QUESTIONS), (questions, settings.max_questions)):
        left, taken = settings.max_questions - len(asked), [region.box for region in asked]
        asked += set_apart(group, min(most, left), prediction.shape, taken)
    return Suggestion(prediction.shape, tuple(masks), asked, float(np.clip(1 - worst, 0, 1)))


def _object_masks(
    prediction: Prediction, schema: LabelSchema, limits: Sequence[ObjectLimits], settings: SuggestionSettings
) -> tuple[list[SuggestedMask], list[int], list[tuple[int, Neck]]]:
    """Cut out what is sent; measure every object of the image in pixels, sent or not; and list the necks."""
    masks: list[SuggestedMask] = []
    areas_px: list[int] = []
    necks: list[tuple[int, Neck]] = []
    for index, mask, of_class in masks_and_necks(prediction, schema, limits):
        necks += [(index, neck) for neck in of_class]
        components = find_components(mask)
        areas_px += components.areas.tolist()
        if settings.regions == "classes":
            masks += _cut(index, mask, prediction)
        else:
            masks += _cut_objects(index, components, prediction, settings.max_objects)
    if settings.regions == "objects":
        masks = sorted(masks, key=_weight, reverse=True)[: settings.max_objects]
    return masks, areas_px, necks


def _weight(mask: SuggestedMask) -> float:
    """Large and sure objects first: the pixels that are probably right."""
    return mask.confidence * float(np.count_nonzero(mask.mask))


def _cut(class_index: int, mask: Mask, prediction: Prediction) -> Iterator[SuggestedMask]:
    """Yield `mask` cut to the box it fills; nothing when it is empty."""
    box = filled_box(mask)
    if box.height:
        yield _suggested(class_index, mask[box.slices].copy(), box.top, box.left, prediction)


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
