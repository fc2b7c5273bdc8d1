"""Every rule of partial annotation and of what counts as truth, one test each, named after the rule."""

from __future__ import annotations

import time
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.objects.keep_apart import SAME_OBJECT_OVERLAP
from core.painting import Box, BrushRegion, Origin, Painting
from core.schema import LabelClass, LabelSchema
from core.truth.agreement import combine_annotators, combine_versions, find_disputes
from core.truth.label_map import PartialLabelMap, SentMask, build_label_map

B, N, C, U = 0, 1, 2, 255
SCHEMA = LabelSchema.of("Background", "Nucleus", "Cell")
PHASES = LabelSchema.of("Ferrite", "Pearlite")
FILLED = LabelSchema((LabelClass("Background", "background"), LabelClass("Nucleus", autofill=True)))


def stroke(
    class_index: int,
    rows: Sequence[str],
    top: int = 0,
    left: int = 0,
    name: str = "",
    origin: Origin = "manual",
) -> BrushRegion:
    """`#` painted, `+` soft edge (alpha 127), `.` nothing."""
    alpha = np.array([[{"#": 255, "+": 127, ".": 0}[sign] for sign in row] for row in rows], np.uint8)
    region_id = name or f"{class_index}-{top}-{left}-{origin}"
    return BrushRegion(region_id, class_index, origin, top, left, alpha)


def sent(class_index: int, rows: Sequence[str], top: int = 0, left: int = 0) -> SentMask:
    return SentMask(class_index, top, left, np.array([[sign == "#" for sign in row] for row in rows]))


def label(
    shape: tuple[int, int],
    *regions: BrushRegion,
    schema: LabelSchema = SCHEMA,
    originals: dict[str, SentMask] | None = None,
    reviewed: Sequence[Box] = (),
) -> PartialLabelMap:
    return build_label_map(Painting(shape, regions, tuple(reviewed)), schema, originals or {})


def rows(partial: PartialLabelMap) -> list[str]:
    """`.` unlabelled, `b` Background, `n` Nucleus, `c` Cell."""
    return [
        "".join({B: "b", N: "n", C: "c", U: "."}[value] for value in row)
        for row in partial.label_map.tolist()
    ]


def codes(partial: PartialLabelMap) -> list[str]:
    return [finding.code for finding in partial.findings]


# Partial annotation


def test_a_pixel_that_nobody_painted_is_unlabelled() -> None:
    assert rows(label((2, 3), stroke(N, ["#"], top=1, left=1))) == ["...", ".n."]


def test_an_annotation_without_regions_says_nothing() -> None:
    partial = label((2, 2))
    assert rows(partial) == ["..", ".."]
    assert partial.findings == ()


def test_an_emptied_region_says_nothing() -> None:
    empty = BrushRegion("e", N, "manual", 0, 0, np.zeros((0, 0), np.uint8))
    assert rows(label((1, 2), empty, stroke(B, ["##"]))) == ["bb"]


def test_background_is_a_class_that_is_painted_like_any_other() -> None:
    assert rows(label((1, 3), stroke(B, ["##"]))) == ["bb."]


def test_without_a_background_class_nothing_is_background() -> None:
    partial = label(
        (1, 6), stroke(0, ["##"]), stroke(0, ["##"], left=2), schema=PHASES, reviewed=[Box(0, 0, 1, 6)]
    )
    assert partial.label_map.tolist() == [[0, 0, 0, 0, U, U]]
    assert partial.carved_px == 0


@pytest.mark.parametrize("background_first", [True, False])
def test_background_is_cropped_in_any_stroke_order(background_first: bool) -> None:
    strokes = [stroke(B, ["#####"] * 3), stroke(N, ["##"], top=1, left=1), stroke(C, ["#"], top=1, left=4)]
    ordered = strokes if background_first else strokes[::-1]
    assert rows(label((3, 5), *ordered)) == ["bbbbb", "bnnbc", "bbbbb"]


@given(st.permutations(range(4)))
def test_stroke_order_does_not_matter_where_objects_do_not_touch(order: list[int]) -> None:
    strokes = [
        stroke(B, ["#########"] * 3),
        stroke(N, ["+#+"], top=1, left=0),
        stroke(C, ["##"], top=1, left=4),
        stroke(N, ["#+"], top=1, left=7),
    ]
    expected = rows(label((3, 9), *strokes))
    assert (
        rows(label((3, 9), *(strokes[i] for i in order)))
        == expected
        == ["bbbbbbbbb", ".n.bccbn.", "bbbbbbbbb"]
    )


def test_two_different_object_classes_on_one_pixel_contradict() -> None:
    partial = label((1, 6), stroke(B, ["######"]), stroke(N, ["###"]), stroke(C, ["###"], left=2))
    assert rows(partial) == ["nn.ccb"]
    assert codes(partial) == ["overlapping-classes"]
    assert partial.contradicting_px == 1
    assert "1 pixels" in partial.findings[0].message


def test_a_third_stroke_does_not_settle_a_contradiction() -> None:
    partial = label((1, 1), stroke(N, ["#"]), stroke(C, ["#"]), stroke(N, ["#"], name="again"))
    assert rows(partial) == ["."]


def test_touching_objects_of_one_class_are_separated_by_one_pixel() -> None:
    partial = label((2, 6), stroke(N, ["###"] * 2), stroke(N, ["###"] * 2, left=3))
    assert rows(partial) == ["nnnbnn", "nnnbnn"]
    assert (partial.carved_px, partial.touching_objects) == (2, 1)
    assert codes(partial) == ["objects-without-gap"]


def test_objects_that_touch_at_a_corner_are_separated() -> None:
    partial = label((4, 4), stroke(N, ["##"] * 2), stroke(N, ["##"] * 2, top=2, left=2))
    assert rows(partial) == ["nn..", "nn..", "..bn", "..nn"]


def test_a_small_overlap_belongs_to_the_earlier_object() -> None:
    partial = label((1, 12), stroke(N, ["######"]), stroke(N, ["#######"], left=5))
    assert rows(partial) == ["nnnnnnbnnnnn"]


def test_a_stroke_that_overlaps_much_goes_on_painting_the_same_object() -> None:
    partial = label((1, 8), stroke(N, ["#####"]), stroke(N, ["#####"], left=3))
    assert rows(partial) == ["nnnnnnnn"]
    assert partial.touching_objects == 0


def test_touching_objects_of_different_classes_keep_all_their_pixels() -> None:
    assert rows(label((1, 4), stroke(N, ["##"]), stroke(C, ["##"], left=2))) == ["nncc"]


def test_a_one_pixel_gap_survives() -> None:
    gap = label((1, 5), stroke(N, ["##"]), stroke(N, ["##"], left=3))
    assert rows(gap) == ["nn.nn"]
    with_background = label((1, 5), stroke(N, ["##"]), stroke(N, ["##"], left=3), stroke(B, ["#####"]))
    assert rows(with_background) == ["nnbnn"]
    assert codes(with_background) == []


def test_autofill_gives_enclosed_holes_to_their_region() -> None:
    ring = stroke(N, [".###.", "##.##", "#...#", "##+##", ".###."])
    ground = stroke(B, ["#####"] * 5)
    assert rows(label((5, 5), ring, ground, schema=FILLED)) == ["bnnnb", "nnnnn", "nnnnn", "nnnnn", "bnnnb"]


def test_autofill_is_off_unless_asked_for() -> None:
    assert rows(label((3, 3), stroke(N, ["###", "#.#", "###"]), stroke(B, ["###"] * 3)))[1] == "nbn"


def test_autofill_needs_one_region_to_enclose_the_hole() -> None:
    upper, lower = stroke(N, ["###", "#.#"], name="u"), stroke(N, ["###"], top=3, name="l")
    partial = label((4, 3), upper, lower, schema=FILLED)
    assert rows(partial)[1] == "n.n"


def test_autofilled_background_is_cropped_out_of_the_objects_inside() -> None:
    schema = LabelSchema((LabelClass("Background", "background", autofill=True), LabelClass("Nucleus")))
    ring = stroke(B, ["#####", "#...#", "#...#", "#...#", "#####"])
    partial = label((5, 5), ring, stroke(N, ["#"], top=2, left=2), schema=schema)
    assert rows(partial) == ["bbbbb", "bbbbb", "bbnbb", "bbbbb", "bbbbb"]


def test_painted_means_alpha_of_at_least_128() -> None:
    region = BrushRegion("a", N, "manual", 0, 0, np.array([[127, 128, 255]], np.uint8))
    assert rows(label((1, 3), region)) == [".nn"]


@pytest.mark.parametrize("background_first", [True, False])
def test_the_soft_edge_of_an_object_is_unlabelled_and_not_background(background_first: bool) -> None:
    strokes = [stroke(B, ["#####"]), stroke(N, ["+#+"], left=1)]
    assert rows(label((1, 5), *(strokes if background_first else strokes[::-1]))) == ["b.n.b"]


def test_the_soft_edge_of_background_is_unlabelled() -> None:
    assert rows(label((1, 3), stroke(B, ["+#+"]))) == [".b."]


def test_the_soft_edge_of_one_object_does_not_take_pixels_of_another() -> None:
    assert rows(label((1, 3), stroke(N, ["##+"]), stroke(C, ["#"], left=2))) == ["nnc"]


def test_several_annotators_add_up_and_disagreement_is_unlabelled_and_counted() -> None:
    first = np.array([[B, N, U, N, U]], np.uint8)
    second = np.array([[B, U, C, C, U]], np.uint8)
    third = np.array([[B, U, U, N, U]], np.uint8)
    combined, disagreement_px = combine_annotators([first, second, third])
    assert combined.tolist() == [[B, N, C, N, U]]
    assert disagreement_px == 0
    assert first.tolist() == [[B, N, U, N, U]]
    combined, disagreement_px = combine_annotators([first, second])
    assert combined.tolist() == [[B, N, C, U, U]]
    assert disagreement_px == 1


def test_what_most_of_those_who_labelled_a_pixel_say_counts() -> None:
    said = np.array([[B, B, N, U], [N, N, N, U], [C, N, C, U], [U, B, C, N]], np.uint8)
    people = [row[None] for row in said]
    assert combine_annotators(people)[0].tolist() == [[U, U, U, N]]
    assert combine_annotators(people[:3])[0].tolist() == [[U, N, N, U]]
    assert combine_annotators(people[:3])[1] == 1


def test_places_in_dispute_are_the_thick_ones_the_largest_first() -> None:
    ours = np.full((60, 80), B, np.uint8)
    theirs = ours.copy()
    theirs[10:30, 10:30] = N
    theirs[40:48, 50:60] = C
    theirs[50:53, 0:80] = N  # an outline that nobody draws twice the same way
    large, small = find_disputes([ours, theirs], combine_annotators([ours, theirs])[0])
    assert (large.box, large.class_indices) == (Box(4, 4, 32, 32), (B, N))
    assert (small.box, set(small.class_indices)) == (Box(34, 44, 20, 22), {B, C})
    agreed = [ours, theirs, theirs]
    assert find_disputes(agreed, combine_annotators(agreed)[0]) == ()


def test_maps_of_different_sizes_are_not_combined() -> None:
    with pytest.raises(ValueError, match="one shape"):
        combine_annotators([np.zeros((1, 2), np.uint8), np.zeros((2, 1), np.uint8)])
    with pytest.raises(ValueError, match="one shape"):
        combine_annotators([])


# What in an annotation is truth


def test_a_manual_region_teaches_all_its_painted_pixels() -> None:
    partial = label((1, 3), stroke(N, ["###"], name="a"), originals={"a": sent(N, ["###"])})
    assert rows(partial) == ["nnn"]


def test_an_untouched_prediction_teaches_nothing_by_itself() -> None:
    region = stroke(N, ["###"], name="p", origin="prediction")
    partial = label((1, 3), region, originals={"p": sent(N, ["###"])})
    assert rows(partial) == ["..."]
    assert codes(partial) == ["untouched-prediction"]
    (message,) = (finding.message for finding in partial.findings)
    assert "accepted without change it teaches nothing" in message
    assert "Reviewed, or check 'Whole image reviewed'" in message


def test_a_changed_prediction_teaches_added_and_erased_pixels_only() -> None:
    region = stroke(N, [".####"], name="p", origin="prediction-changed")
    assert rows(label((1, 6), region, originals={"p": sent(N, ["###"])})) == ["b..nn."]


def test_erased_pixels_are_unlabelled_without_a_background_class() -> None:
    region = stroke(1, [".##"], name="p", origin="prediction-changed")
    partial = label((1, 3), region, schema=PHASES, originals={"p": sent(1, ["##."])})
    assert partial.label_map.tolist() == [[U, U, 1]]


def test_a_softly_erased_pixel_is_unlabelled() -> None:
    region = stroke(N, [".+#"], name="p", origin="prediction-changed")
    assert rows(label((1, 3), region, stroke(B, ["###"]), originals={"p": sent(N, ["###"])})) == ["b.."]


def test_a_prediction_that_was_erased_whole_teaches_background() -> None:
    region = BrushRegion("p", N, "prediction-changed", 0, 0, np.zeros((0, 0), np.uint8))
    assert rows(label((2, 3), region, originals={"p": sent(N, ["##"], top=1, left=1)})) == ["...", ".bb"]


def test_erased_background_is_not_background() -> None:
    region = stroke(B, [".##"], name="p", origin="prediction-changed")
    assert rows(label((1, 3), region, originals={"p": sent(B, ["##."])})) == ["..b"]


def test_erased_pixels_lose_against_anything_that_a_person_painted_there() -> None:
    changed = stroke(N, ["..##"], name="p", origin="prediction-changed")
    partial = label((1, 4), stroke(C, ["#"]), changed, originals={"p": sent(N, ["####"])})
    assert rows(partial) == ["cb.."]


def test_a_changed_prediction_with_another_class_teaches_all_its_pixels() -> None:
    region = stroke(C, [".##"], name="p", origin="prediction-changed")
    assert rows(label((1, 3), region, originals={"p": sent(N, ["###"])})) == ["bcc"]


def test_a_prediction_with_another_class_was_changed_whatever_its_origin_says() -> None:
    region = stroke(C, ["##"], name="p", origin="prediction")
    assert rows(label((1, 2), region, originals={"p": sent(N, ["##"])})) == ["cc"]


def test_a_changed_prediction_whose_original_is_gone_teaches_nothing_and_is_reported() -> None:
    region = stroke(N, ["##."], name="p", origin="prediction-changed")
    partial = label((1, 3), region, stroke(B, ["###"]))
    assert rows(partial) == ["..b"]
    assert codes(partial) == ["original-gone"]
    assert "p" in partial.findings[0].message


@pytest.mark.parametrize(
    "original",
    [
        SentMask(N, 0, 0, np.ones((1, 3), bool), image_shape=(2, 3)),
        SentMask(N, 0, 0, np.ones((1, 9), bool)),
    ],
)
def test_an_original_for_another_image_size_is_gone(original: SentMask) -> None:
    region = stroke(N, ["##."], name="p", origin="prediction-changed")
    partial = label((1, 3), region, originals={"p": original})
    assert rows(partial) == ["..."]
    assert codes(partial) == ["original-gone"]


def test_what_a_person_left_of_a_changed_prediction_keeps_background_away() -> None:
    changed = stroke(N, ["##."], name="p", origin="prediction-changed")
    partial = label((1, 4), changed, stroke(B, ["####"]), originals={"p": sent(N, ["###"])})
    assert rows(partial) == ["..bb"]


def test_human_strokes_win_over_predictions_without_a_contradiction() -> None:
    predicted = stroke(N, ["###"], name="p", origin="prediction")
    assert rows(label((1, 3), stroke(C, ["##"]), predicted)) == ["cc."]
    reviewed = label((1, 4), stroke(C, ["##"]), predicted, reviewed=[Box(0, 0, 1, 4)])
    assert rows(reviewed) == ["ccnb"]
    assert codes(reviewed) == []


def test_background_painted_over_a_prediction_teaches_background_and_is_reported() -> None:
    predicted = stroke(N, ["##"], name="p", origin="prediction")
    partial = label((1, 3), predicted, stroke(B, ["###"]))
    assert rows(partial) == ["bbb"]
    assert codes(partial) == ["background-over-prediction", "untouched-prediction"]


def test_background_painted_over_a_prediction_stays_background_when_the_area_is_reviewed() -> None:
    predicted = stroke(N, ["####"], name="p", origin="prediction")
    for reviewed in ([], [Box(0, 0, 1, 6)]):
        partial = label((1, 6), predicted, stroke(B, ["##"]), reviewed=reviewed)
        assert rows(partial) == (["bbnnbb"] if reviewed else ["bb...."])
        silent = [] if reviewed else ["untouched-prediction"]
        assert codes(partial) == ["background-over-prediction", *silent]


def test_background_in_a_reviewed_area_gives_way_to_what_people_painted_or_touched_up() -> None:
    changed = stroke(N, ["##"], left=3, name="q", origin="prediction-changed")
    partial = label(
        (1, 6),
        stroke(N, ["##"]),
        changed,
        stroke(B, ["######"]),
        originals={"q": sent(N, ["###"], left=3)},
        reviewed=[Box(0, 0, 1, 6)],
    )
    assert rows(partial) == ["nnbnnb"]
    assert codes(partial) == []


def test_a_stroke_of_the_models_own_background_does_not_hide_its_object() -> None:
    ground, predicted = (stroke(i, ["##"], name=f"p{i}", origin="prediction") for i in (B, N))
    partial = label((1, 3), ground, predicted, reviewed=[Box(0, 0, 1, 3)])
    assert rows(partial) == ["nnb"]
    assert codes(partial) == ["covered-region"]  # the Background: nothing is left of it


def test_autofill_of_a_changed_prediction_fills_only_what_a_person_closed() -> None:
    originals = {"p": sent(N, ["###.###", "#.#.#..", "###.###"])}
    after = stroke(N, ["###.###", "#.#.#.#", "###.###"], name="p", origin="prediction-changed")
    partial = label((3, 7), after, schema=FILLED, originals=originals)
    assert rows(partial) == [".......", ".....nn", "......."]


def test_an_erased_hole_stays_open_with_autofill() -> None:
    after = stroke(N, ["###", "#.#", "###"], name="p", origin="prediction-changed")
    partial = label((3, 3), after, schema=FILLED, originals={"p": sent(N, ["###"] * 3)})
    assert rows(partial) == ["...", ".b.", "..."]


# Reviewed


def test_inside_a_reviewed_box_objects_of_any_origin_are_true_and_all_else_is_background() -> None:
    predicted = stroke(N, ["####"], left=1, name="p", origin="prediction")
    changed = stroke(C, ["##"], top=2, left=1, name="q", origin="prediction-changed")
    partial = label(
        (4, 6),
        predicted,
        changed,
        originals={"q": sent(C, ["##"], top=2, left=1)},
        reviewed=[Box(0, 0, 3, 3)],
    )
    assert rows(partial) == ["bnn...", "bbb...", "bcc...", "......"]


def test_inside_a_reviewed_box_a_region_whose_original_is_gone_is_true() -> None:
    changed = stroke(N, ["#+"], name="p", origin="prediction-changed")
    assert rows(label((1, 3), changed, reviewed=[Box(0, 0, 1, 3)])) == ["n.b"]


def test_without_background_the_unpainted_rest_of_a_reviewed_box_stays_unlabelled() -> None:
    region = stroke(1, ["##"], name="p", origin="prediction")
    partial = label((1, 4), region, schema=PHASES, reviewed=[Box(0, 0, 1, 4)])
    assert partial.label_map.tolist() == [[1, 1, U, U]]


def test_soft_edges_stay_unlabelled_inside_a_reviewed_box() -> None:
    region = stroke(N, ["+#+"], left=1, name="p", origin="prediction")
    assert rows(label((1, 5), region, reviewed=[Box(0, 0, 1, 5)])) == ["b.n.b"]


def test_whole_image_reviewed_is_one_box_over_the_image() -> None:
    assert rows(label((2, 2), stroke(N, ["#"], origin="prediction"), reviewed=[Box(0, 0, 2, 2)])) == [
        "nb",
        "bb",
    ]


def test_a_reviewed_box_is_cut_to_the_image() -> None:
    assert rows(label((2, 2), reviewed=[Box(-3, 1, 4, 9)])) == [".b", ".."]


def test_contradictions_hold_inside_a_reviewed_box() -> None:
    first, second = stroke(N, ["##"], origin="prediction"), stroke(C, ["##"], left=1, origin="prediction")
    partial = label((1, 4), first, second, reviewed=[Box(0, 0, 1, 4)])
    assert rows(partial) == ["n.cb"]
    assert partial.contradicting_px == 1


def test_touching_objects_are_separated_inside_a_reviewed_box_and_people_keep_their_pixels() -> None:
    predicted = stroke(N, ["###"], name="p", origin="prediction")
    partial = label((1, 6), predicted, stroke(N, ["###"], left=3), reviewed=[Box(0, 0, 1, 6)])
    assert rows(partial) == ["nnbnnn"]


def test_a_person_may_add_to_the_models_own_object_without_a_line_in_it() -> None:
    changed = stroke(N, ["####"], name="p", origin="prediction-changed")
    partial = label((1, 5), changed, originals={"p": sent(N, ["##"])}, reviewed=[Box(0, 0, 1, 5)])
    assert rows(partial) == ["nnnnb"]


# Inputs, limits and cost


def test_regions_outside_the_image_and_unknown_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        label((1, 2), stroke(N, ["##"], left=1))
    with pytest.raises(ValueError, match="has class 3 of 3"):
        label((1, 2), stroke(3, ["##"]))


def test_inputs_are_never_changed() -> None:
    regions = [stroke(N, ["#+#"]), stroke(N, ["##"], left=2), stroke(B, ["#####"])]
    original = sent(N, ["##"])
    regions.append(stroke(N, ["#"], name="p", origin="prediction-changed"))
    for region in regions:
        region.alpha.setflags(write=False)
    original.mask.setflags(write=False)
    label((1, 5), *regions, originals={"p": original}, reviewed=[Box(0, 0, 1, 5)])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_pixels_of_separate_strokes_are_never_neighbours(seed: int, whole_image_reviewed: bool) -> None:
    regions, first = separate_discs(np.random.default_rng(seed))
    partial = label((40, 40), *regions, reviewed=[Box(0, 0, 40, 40)] if whole_image_reviewed else [])
    kept = np.where(partial.label_map == N, first, 0)
    for one, other in eight_neighbours(kept):
        assert not ((one != other) & (one > 0) & (other > 0)).any()
    assert int(((first > 0) & (partial.label_map == B)).sum()) == partial.carved_px
    assert not ((first > 0) & (partial.label_map == U)).any()


def separate_discs(rng: np.random.Generator) -> tuple[list[BrushRegion], NDArray[np.int64]]:
    """Draw discs that share at most the limit with any earlier one; also who painted a pixel first."""
    regions: list[BrushRegion] = []
    painted: list[NDArray[np.bool_]] = []
    first = np.zeros((40, 40), np.int64)
    for number in range(1, 13):
        region = disc(rng, 40, f"r{number}")
        mask = np.zeros(first.shape, bool)
        mask[region.box.slices] = region.painted
        if all((mask & other).sum() <= SAME_OBJECT_OVERLAP * mask.sum() for other in painted):
            regions.append(region)
            painted.append(mask)
            first[mask & (first == 0)] = number
    return regions, first


def eight_neighbours(values: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    return [
        (values[1:], values[:-1]),
        (values[:, 1:], values[:, :-1]),
        (values[1:, 1:], values[:-1, :-1]),
        (values[1:, :-1], values[:-1, 1:]),
    ]


def disc(rng: np.random.Generator, size: int, name: str, radius: int = 6) -> BrushRegion:
    top, left = (int(v) for v in rng.integers(0, size - 2 * radius - 1, 2))
    alpha = np.zeros((2 * radius + 1, 2 * radius + 1), np.uint8)
    cv2.circle(alpha, (radius, radius), radius, 255, -1)
    return BrushRegion(name, N, "manual", top, left, alpha)


def test_300_regions_on_2048_pixels_take_well_under_a_second() -> None:
    rng = np.random.default_rng(0)
    ground = BrushRegion("b", B, "manual", 0, 0, np.full((2048, 2048), 255, np.uint8))
    regions = (ground, *(disc(rng, 2048, f"r{i}", radius=30) for i in range(300)))
    painting = Painting((2048, 2048), regions)
    started = time.process_time()  # others may need the cores too
    partial = build_label_map(painting, SCHEMA, {})
    assert time.process_time() - started < 2.0  # measured 0.1 s
    assert label_share(partial.label_map, N) > 0.1


def label_share(label_map: NDArray[np.uint8], class_index: int) -> float:
    return float((label_map == class_index).mean())


def test_of_one_person_the_newer_label_counts_pixel_by_pixel() -> None:
    older, newer = (np.array([values], np.uint8) for values in ([B, N, N, U, U], [U, C, N, N, U]))
    combined, replaced_px = combine_versions([older, newer])
    assert combined.tolist() == [[B, C, N, N, U]]
    assert replaced_px == 1
    assert older.tolist() == [[B, N, N, U, U]]


@pytest.mark.parametrize(
    ("region", "code"),
    [
        (stroke(N, [".."], name="x"), "empty-region"),
        (stroke(N, ["++"], name="x"), "faint-mask"),
        (stroke(N, ["##"], name="p", origin="prediction-changed"), "unchanged-prediction"),
        (stroke(N, ["##"], name="elsewhere", origin="prediction"), "untouched-prediction"),
        (stroke(N, ["##"], name="elsewhere", origin="prediction-changed"), "original-gone"),
    ],
)
def test_a_region_that_teaches_nothing_says_why(region: BrushRegion, code: str) -> None:
    partial = label((1, 4), region, originals={"p": sent(N, ["##"])})
    assert rows(partial) == ["...."]
    assert codes(partial) == [code]


def test_the_message_about_a_faint_mask_says_how_faint_it_is() -> None:
    (finding,) = label((1, 4), stroke(N, ["+"])).findings
    assert "127 of 255" in finding.message


def test_background_under_objects_alone_says_that_it_is_covered() -> None:
    partial = label((1, 4), stroke(B, ["##"]), stroke(N, ["###"]))
    assert rows(partial) == ["nnn."]
    assert codes(partial) == ["covered-region"]


def test_what_was_only_erased_is_reported_where_there_is_no_background() -> None:
    region = stroke(1, ["#."], name="p", origin="prediction-changed")
    partial = label((1, 3), region, schema=PHASES, originals={"p": sent(1, ["##"])})
    assert codes(partial) == ["covered-region"]


def test_a_reviewed_area_with_nothing_in_it_is_reported_where_there_is_no_background() -> None:
    assert codes(label((1, 3), schema=PHASES, reviewed=[Box(0, 0, 1, 3)])) == ["nothing-reviewed"]


def test_a_reviewed_area_of_contradictions_is_not_said_to_lack_a_background() -> None:
    partial = label((1, 2), stroke(N, ["##"]), stroke(C, ["##"]), reviewed=[Box(0, 0, 1, 2)])
    assert rows(partial) == [".."]
    assert "nothing-reviewed" not in codes(partial)
    assert codes(label((1, 3), reviewed=[Box(0, 0, 1, 3)])) == []


def test_a_gone_original_is_no_matter_where_the_area_was_reviewed() -> None:
    changed = stroke(N, ["##"], name="elsewhere", origin="prediction-changed")
    partial = label((1, 3), changed, reviewed=[Box(0, 0, 1, 3)])
    assert rows(partial) == ["nnb"]
    assert codes(partial) == []
