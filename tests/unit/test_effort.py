"""What an annotation took of a person, and how much of a suggestion they had to change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.painting import Box, BrushRegion, Origin, Painting
from core.schema import LabelClass, LabelSchema
from core.truth.claims import SentMask
from core.truth.corrections import Effort, measure_effort

B, N, C = 0, 1, 2
SCHEMA = LabelSchema.of("Background", "Nucleus", "Cell")


def region(name: str, class_index: int, signs: str, origin: Origin = "manual", left: int = 0) -> BrushRegion:
    """`#` painted, `+` soft edge, `.` nothing."""
    alpha = np.array([[{"#": 255, "+": 127, ".": 0}[sign] for sign in signs]], np.uint8)
    return BrushRegion(name, class_index, origin, 0, left, alpha)


def sent(class_index: int, signs: str, left: int = 0) -> SentMask:
    return SentMask(class_index, 0, left, np.array([[sign == "#" for sign in signs]]))


def measure(
    *regions: BrushRegion,
    originals: dict[str, SentMask] | None = None,
    started_from: Sequence[str] | None = None,
    schema: LabelSchema = SCHEMA,
) -> Effort:
    return measure_effort(Painting((1, 12), regions), schema, originals, started_from)


def test_nothing_submitted_took_nothing() -> None:
    assert measure() == Effort()


def test_strokes_and_their_painted_pixels_are_counted() -> None:
    effort = measure(region("a", N, "+##+"), region("b", B, "####", left=6))
    assert (effort.strokes, effort.painted_px, effort.erased_px) == (2, 6, 0)
    assert effort.corrective_dice == {}


def test_regions_without_an_id_are_counted_each() -> None:
    assert measure(region("", N, "##"), region("", N, "#", left=6)).painted_px == 3


def test_an_untouched_prediction_is_accepted_and_took_no_paint() -> None:
    effort = measure(
        region("p", N, "####", "prediction"), originals={"p": sent(N, "####")}, started_from=["p"]
    )
    assert effort == Effort(accepted=1, corrective_dice={"Nucleus": 1.0})


def test_a_region_that_was_touched_and_put_back_is_accepted() -> None:
    changed = region("p", N, "####", "prediction-changed")
    assert measure(changed, originals={"p": sent(N, "####")}, started_from=["p"]).accepted == 1


def test_added_and_erased_pixels_of_a_corrected_prediction_are_counted() -> None:
    changed = region("p", N, "##", "prediction-changed", left=3)
    effort = measure(changed, originals={"p": sent(N, "####")}, started_from=["p"])
    assert (effort.painted_px, effort.erased_px, effort.strokes) == (1, 3, 0)
    assert (effort.accepted, effort.corrected, effort.deleted) == (0, 1, 0)
    assert effort.corrective_dice == {"Nucleus": round(2 * 1 / 6, 4)}


def test_a_region_that_was_moved_altogether_was_painted_and_erased_whole() -> None:
    moved = region("p", N, "##", "prediction-changed", left=8)
    effort = measure(moved, originals={"p": sent(N, "####")}, started_from=["p"])
    assert (effort.painted_px, effort.erased_px, effort.corrected) == (2, 4, 1)
    assert effort.corrective_dice == {"Nucleus": 0.0}


def test_a_deleted_region_counts_against_the_prediction() -> None:
    effort = measure(
        region("p", N, "##", "prediction"),
        originals={"p": sent(N, "##"), "q": sent(N, "##", left=6)},
        started_from=["p", "q"],
    )
    assert (effort.accepted, effort.deleted) == (1, 1)
    assert effort.corrective_dice == {"Nucleus": round(4 / 6, 4)}


def test_a_prediction_that_was_deleted_whole_has_no_agreement() -> None:
    effort = measure(originals={"p": sent(N, "##")}, started_from=["p"])
    assert effort == Effort(deleted=1, corrective_dice={"Nucleus": 0.0})


def test_an_object_that_was_not_predicted_counts_against_the_prediction() -> None:
    effort = measure(region("a", N, "##"), started_from=[])
    assert effort.corrective_dice == {"Nucleus": 0.0}


def test_a_prediction_of_nothing_that_stays_nothing_has_no_score() -> None:
    assert measure(started_from=[]).corrective_dice == {}


def test_a_region_with_another_class_was_corrected_without_paint() -> None:
    renamed = region("p", C, "####", "prediction")
    effort = measure(renamed, originals={"p": sent(N, "####")}, started_from=["p"])
    assert (effort.accepted, effort.corrected, effort.painted_px) == (0, 1, 0)
    assert effort.corrective_dice == {"Nucleus": 0.0, "Cell": 0.0}


def test_background_painted_over_a_prediction_is_a_correction() -> None:
    kept = region("p", N, "####", "prediction")
    effort = measure(kept, region("b", B, "###"), originals={"p": sent(N, "####")}, started_from=["p"])
    assert effort.corrective_dice == {"Nucleus": round(2 / 5, 4)}


def test_background_around_objects_that_people_painted_or_touched_up_takes_nothing_from_them() -> None:
    changed = region("p", N, "###", "prediction-changed")
    strokes = (region("a", N, "##", left=6), region("b", B, "#" * 12))
    effort = measure(changed, *strokes, originals={"p": sent(N, "##")}, started_from=["p"])
    assert effort.corrective_dice == {"Nucleus": round(2 * 2 / (2 + 5), 4)}


def test_regions_of_an_older_prediction_are_compared_with_what_they_were() -> None:
    old = region("old", N, "###", "prediction-changed")
    effort = measure(old, originals={"old": sent(N, "#"), "new": sent(N, "#")}, started_from=["new"])
    assert (effort.painted_px, effort.accepted, effort.corrected, effort.deleted) == (2, 0, 0, 1)


def test_a_changed_region_whose_original_is_gone_took_an_unknown_number_of_pixels() -> None:
    effort = measure(region("p", N, "###", "prediction-changed"))
    assert (effort.painted_px, effort.erased_px, effort.strokes) == (0, 0, 0)


def test_a_class_that_the_project_no_longer_has_is_left_out() -> None:
    assert measure(originals={"p": sent(-1, "##")}, started_from=["p"]).corrective_dice == {}


def test_autofilled_holes_belong_to_what_was_submitted() -> None:
    schema = LabelSchema((LabelClass("Background", "background"), LabelClass("Nucleus", autofill=True)))
    ring = BrushRegion("a", N, "manual", 0, 0, np.array([[255] * 3, [255, 0, 255], [255] * 3], np.uint8))
    full = SentMask(N, 0, 0, np.ones((3, 3), bool))
    effort = measure_effort(Painting((3, 3), (ring,)), schema, {"p": full}, ["p"])
    assert effort.corrective_dice == {"Nucleus": 1.0}
    assert effort.painted_px == 8


masks = st.integers(0, 2**12 - 1).map(lambda bits: np.array([[bits >> i & 1 for i in range(12)]], bool))


@given(masks, masks)
def test_corrective_dice_is_the_dice_of_both_masks_wherever_the_person_changed_it(
    before: NDArray[np.bool_], after: NDArray[np.bool_]
) -> None:
    changed = BrushRegion("p", N, "prediction-changed", 0, 0, np.where(after, 255, 0).astype(np.uint8))
    effort = measure(changed, originals={"p": SentMask(N, 0, 0, before)}, started_from=["p"])
    assert effort.painted_px == np.count_nonzero(after & ~before)
    assert effort.erased_px == np.count_nonzero(before & ~after)
    total = np.count_nonzero(before) + np.count_nonzero(after)
    expected = 2 * np.count_nonzero(before & after) / max(total, 1)
    assert effort.corrective_dice == ({"Nucleus": pytest.approx(expected, abs=1e-4)} if total else {})


@given(st.lists(masks, min_size=1, max_size=4))
def test_whatever_was_sent_and_left_alone_agrees_with_itself(drawn: list[NDArray[np.bool_]]) -> None:
    originals = {str(i): SentMask(N, 0, 0, mask) for i, mask in enumerate(drawn)}
    regions = [
        BrushRegion(str(i), N, "prediction", 0, 0, np.where(mask, 255, 0).astype(np.uint8))
        for i, mask in enumerate(drawn)
    ]
    effort = measure(*regions, originals=originals, started_from=list(originals))
    assert effort.accepted == len(drawn)
    assert set(effort.corrective_dice.values()) <= {1.0}
    assert effort.painted_px == effort.erased_px == 0


def test_inputs_are_never_changed() -> None:
    original, before = sent(N, "####"), region("p", N, "##", "prediction-changed")
    painting = Painting((1, 12), (before,), (Box(0, 0, 1, 12),))
    measure_effort(painting, SCHEMA, {"p": original}, ["p"])
    assert original.mask.all()
    assert before.alpha.all()
