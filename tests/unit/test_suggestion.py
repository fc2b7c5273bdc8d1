"""What the annotator gets: clean masks that never overlap, questions, and one score."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.asking.regions import clearance
from core.asking.suggestion import Suggestion, SuggestionSettings, build_suggestion
from core.objects.measure import ObjectLimits
from core.objects.of_prediction import separated_objects
from core.prediction import Prediction
from core.schema import LabelSchema

SCHEMA = LabelSchema.of("Background", "Nucleus", "Cell")
PHASES = LabelSchema.of("Ferrite", "Pearlite")
LIMITS = (ObjectLimits(),) + (ObjectLimits(20, 20, 22.0),) * 2


def predict(
    labels: NDArray[np.uint8], confidence: NDArray[np.float64] | float = 0.9, entropy: float = 0.1
) -> Prediction:
    sure = np.broadcast_to(np.asarray(confidence, np.float16), labels.shape).copy()
    unsure = np.full(labels.shape, entropy, np.float16)
    runner_up = ((labels + 1) % 2).astype(np.uint8)
    return Prediction(labels, runner_up, sure, unsure, unsure, np.zeros_like(unsure), sure)


def discs(
    *centres: tuple[int, int], radius: int = 11, size: int = 120, class_index: int = 1
) -> NDArray[np.uint8]:
    labels = np.zeros((size, size), np.uint8)
    for centre in centres:
        cv2.circle(labels, centre, radius, class_index, -1)
    return labels


def suggest(labels: NDArray[np.uint8], *, schema: LabelSchema = SCHEMA, **options: object) -> Suggestion:
    settings = SuggestionSettings(**options)  # type: ignore[arg-type]
    return build_suggestion(
        predict(labels), schema, np.zeros(labels.shape, bool), LIMITS[: len(schema)], settings
    )


def canvas(suggestion: Suggestion, class_index: int) -> NDArray[np.uint8]:
    drawn = np.zeros(suggestion.shape, np.uint8)
    for mask in suggestion.masks:
        if mask.class_index == class_index:
            drawn[mask.box.slices] |= mask.mask
    return drawn


def test_one_mask_per_object_class_and_no_background_unless_asked_for() -> None:
    labels = discs((30, 30), (80, 30)) + discs((60, 90), class_index=2)
    assert [m.class_index for m in suggest(labels).masks] == [1, 2]
    with_background = suggest(labels, send_background=True)
    assert [m.class_index for m in with_background.masks] == [0, 1, 2]
    assert (canvas(with_background, 0) == (labels == 0)).all()
    assert (canvas(suggest(labels), 1) == (labels == 1)).all()


def test_masks_are_cut_to_their_pixels() -> None:
    (mask,) = suggest(discs((30, 40))).masks
    assert (mask.top, mask.left, mask.mask.shape) == (29, 19, (23, 23))


def test_touching_objects_are_separated() -> None:
    labels = discs((40, 40), (59, 40))
    drawn = canvas(suggest(labels), 1)
    assert cv2.connectedComponents(labels)[0] - 1 == 1
    assert cv2.connectedComponents(drawn, connectivity=8)[0] - 1 == 2


def test_without_background_nothing_is_carved() -> None:
    labels = discs((40, 40), (59, 40))
    assert (canvas(suggest(labels, schema=PHASES), 1) == labels).all()
    assert (canvas(suggest(labels, schema=PHASES), 0) == (labels == 0)).all()


def test_specks_and_holes_are_cleaned() -> None:
    labels = discs((40, 40))
    labels[40, 40] = 0
    labels[100:102, 100:102] = 1
    assert (canvas(suggest(labels), 1) == discs((40, 40))).all()


def test_a_small_object_inside_another_is_not_filled_over() -> None:
    labels = discs((60, 60), radius=30)
    labels[58:63, 58:63] = 2
    limits = (ObjectLimits(), ObjectLimits(20, 400, 60.0), ObjectLimits(10, 10, 5.0))
    suggestion = build_suggestion(predict(labels), SCHEMA, np.zeros(labels.shape, bool), limits)
    assert (canvas(suggestion, 2) == (labels == 2)).all()
    assert not (canvas(suggestion, 1) & canvas(suggestion, 2)).any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([SCHEMA, LabelSchema.of("A", "B", "C")]), st.booleans())
def test_masks_never_overlap_and_are_never_empty(seed: int, schema: LabelSchema, per_object: bool) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.random((3, 12, 12)).astype(np.float32)
    labels = np.argmax([cv2.resize(layer, (90, 70)) for layer in coarse], axis=0).astype(np.uint8)
    suggestion = suggest(
        labels, schema=schema, regions="objects" if per_object else "classes", send_background=True
    )
    covered = np.zeros(labels.shape, int)
    for mask in suggestion.masks:
        assert mask.mask.any()
        assert 0 <= mask.confidence <= 1
        covered[mask.box.slices] += mask.mask
    if not suggestion.masks or schema is not SCHEMA:
        assert covered.max(initial=0) <= 1
    objects = canvas(suggestion, 1).astype(int) + canvas(suggestion, 2)
    assert objects.max() <= 1


def test_numbered_objects_are_the_regions_that_are_suggested() -> None:
    labels = discs((30, 30), (30, 50), (90, 30)) + discs((90, 90), class_index=2)
    cv2.circle(labels, (60, 60), 1, 1, -1)  # a speck
    prediction = predict(labels)
    instances = separated_objects(prediction, SCHEMA, LIMITS)
    assert instances.dtype == np.int32
    assert sorted(np.unique(instances)) == [0, 1, 2, 3, 4]
    assert set(np.unique(instances[labels == 2])) == {4}
    suggestion = suggest(labels, regions="objects")
    drawn = np.zeros(labels.shape, bool)
    for mask in suggestion.masks:
        numbers = np.unique(instances[mask.box.slices][mask.mask])
        assert len(numbers) == 1
        assert (instances == numbers[0]).sum() == mask.mask.sum()
        drawn[mask.box.slices] |= mask.mask
    assert ((instances > 0) == drawn).all()


def test_objects_of_classes_that_are_newer_than_the_limits_are_numbered_with_the_defaults() -> None:
    assert separated_objects(predict(discs((40, 40), class_index=2)), SCHEMA, LIMITS[:1]).max() == 1


def test_boxes_follow_the_objects_that_the_image_shows_and_the_project_where_it_shows_too_few() -> None:
    limits = (ObjectLimits(), ObjectLimits(20, 20, 22.0))
    schema = LabelSchema.of("Background", "Nucleus")
    centres = ((80, 80), (220, 80), (80, 220), (220, 220))

    def side(n_objects: int, radius: int, regions: Literal["classes", "objects"]) -> int:
        labels = discs(*centres[:n_objects], radius=radius, size=400)
        maps = predict(labels, confidence=0.6, entropy=0.5)
        asked = SuggestionSettings(regions=regions)
        suggestion = build_suggestion(maps, schema, np.zeros(labels.shape, bool), limits, asked)
        to_be_apart = 2 * math.ceil(clearance(labels.shape) / 2)
        return suggestion.regions[0].box.width + to_be_apart

    for regions in ("classes", "objects"):
        assert side(4, 18, regions) == 72
        # No image's objects are taken to be twice as large as the project's.
        assert side(4, 40, regions) == 88
        assert side(2, 18, regions) == side(0, 18, regions) == 48  # two of the project's are 44 wide


def test_one_region_per_object_at_most_fifty_the_largest_and_surest_first() -> None:
    labels = np.zeros((600, 600), np.uint8)
    for number in range(100):
        row, column = divmod(number, 10)
        cv2.circle(labels, (30 + 60 * column, 30 + 60 * row), 6 + number // 10, 1, -1)
    suggestion = suggest(labels, regions="objects")
    sizes = [int(m.mask.sum()) for m in suggestion.masks]
    assert len(sizes) == 50
    assert sizes == sorted(sizes, reverse=True)
    assert all(cv2.connectedComponents(m.mask.astype(np.uint8))[0] == 2 for m in suggestion.masks)


def test_the_confidence_of_a_mask_is_the_mean_over_its_pixels() -> None:
    labels = discs((40, 40))
    confidence = np.where(labels == 1, 0.75, 0.99)
    suggestion = build_suggestion(predict(labels, confidence), SCHEMA, np.zeros(labels.shape, bool), LIMITS)
    assert suggestion.masks[0].confidence == 0.75


def test_the_score_comes_from_the_worst_region_and_not_from_the_mean_of_the_image() -> None:
    prediction = predict(np.zeros((400, 400), np.uint8), entropy=0.0)
    nothing = np.zeros((400, 400), bool)
    assert build_suggestion(prediction, SCHEMA, nothing, LIMITS).score == 1.0
    prediction.predictive_entropy[100:160, 100:160] = 1.0
    unsure = build_suggestion(prediction, SCHEMA, nothing, LIMITS)
    assert 0 <= unsure.score < 0.3
    assert unsure.score == 1 - unsure.regions[0].acquisition_score


def test_the_score_does_not_depend_on_whether_questions_are_sent() -> None:
    labels = discs((40, 40))
    silent, asking = suggest(labels, max_questions=0), suggest(labels, max_questions=5)
    assert silent.regions == ()
    assert 1 <= len(asking.regions) <= 5
    assert silent.score == asking.score < 1


def test_a_sure_model_asks_nothing_unless_nobody_checked_it() -> None:
    maps = predict(discs((60, 60)), confidence=0.999, entropy=0.01)
    nothing = np.zeros(maps.shape, bool)
    sure = build_suggestion(maps, SCHEMA, nothing, LIMITS)
    unchecked = build_suggestion(maps, SCHEMA, nothing, LIMITS, SuggestionSettings(ask_when_sure=True))
    assert sure.regions == ()
    assert len(unchecked.regions) == 5
    assert sure.score == unchecked.score


def test_an_image_that_is_known_whole_has_no_question() -> None:
    labels = discs((40, 40))
    suggestion = build_suggestion(predict(labels), SCHEMA, np.ones(labels.shape, bool), LIMITS)
    assert suggestion.regions == ()
    assert suggestion.score == 1.0


def test_an_image_without_objects_has_no_masks() -> None:
    assert suggest(np.zeros((50, 60), np.uint8)).masks == ()


def test_classes_that_are_newer_than_the_limits_have_the_defaults() -> None:
    labels = discs((40, 40), class_index=2)
    assert len(build_suggestion(predict(labels), SCHEMA, np.zeros(labels.shape, bool), LIMITS[:1]).masks) == 1


@pytest.mark.parametrize("name", ["margin", "outline", "probabilities"])
def test_maps_of_another_size_make_no_prediction(name: str) -> None:
    larger = np.zeros((2, 5, 4) if name == "probabilities" else (5, 4), np.float16)
    with pytest.raises(ValueError, match="must share one"):
        replace(predict(np.zeros((4, 4), np.uint8)), **{name: larger})
