"""The simulated annotator: paints whole objects, tells the truth without noise, and pays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.painting import Box, Painting
from core.schema import IGNORE_INDEX, LabelSchema
from core.synthetic import make_image
from core.truth.label_map import SentMask, build_label_map
from simulation.annotator import ShownMask, Work, find_objects, paint_place, review_place
from simulation.brush import Pace
from simulation.perception import NOISE_LEVELS, DenseTruth, Noise, perceive

SCHEMA = LabelSchema.of("Background", "Nucleus")


def draw_truth(seed: int = 0, side: int = 128) -> DenseTruth:
    _, instances = make_image("tissue", np.random.default_rng(seed), (side, side))
    return DenseTruth.of_one_class(instances, 1)


def to_map(work: Work, shape: tuple[int, ...], sent: dict[str, SentMask] | None = None) -> np.ndarray:
    painting = Painting((shape[0], shape[1]), work.regions, work.reviewed)
    return build_label_map(painting, SCHEMA, sent).label_map


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 80), st.integers(0, 80))
def test_without_noise_every_painted_pixel_is_true_but_for_crumbs_at_the_edge(
    seed: int, top: int, left: int
) -> None:
    truth = draw_truth(seed)
    work = paint_place(truth, SCHEMA, Box(top, left, 48, 48))
    label_map = to_map(work, truth.instances.shape)
    known = label_map != IGNORE_INDEX
    wrong = known & (label_map != truth.to_label_map(SCHEMA))
    # Corners that the brush cannot reach become Background, and touching ones are carved.
    assert wrong.sum() <= 0.05 * known.sum() + 20
    assert not (wrong & (label_map == 1)).any()


def test_a_place_is_painted_with_its_whole_objects_and_its_background() -> None:
    truth = draw_truth(5)
    box = Box(30, 30, 60, 60)
    work = paint_place(truth, SCHEMA, box)
    label_map = to_map(work, truth.instances.shape)
    assert work.objects
    for number in work.objects:
        whole = truth.instances == number
        assert (label_map[whole] == 1).mean() > 0.85
    background = (truth.instances == 0)[box.slices]
    assert (label_map[box.slices][background] == 0).mean() > 0.9
    assert work.n_units == len(work.objects)


def test_background_never_goes_over_an_object_that_is_not_painted() -> None:
    truth = draw_truth(5)
    box = Box(30, 30, 60, 60)
    work = paint_place(truth, SCHEMA, box, n_objects=1)
    label_map = to_map(work, truth.instances.shape)
    others = (truth.instances > 0) & ~np.isin(truth.instances, work.objects)
    assert len(work.objects) == 1
    assert not (label_map[others] == 0).any()


def test_finished_objects_are_not_painted_again() -> None:
    truth = draw_truth(5)
    box = Box(30, 30, 60, 60)
    first = paint_place(truth, SCHEMA, box, n_objects=2)
    second = paint_place(truth, SCHEMA, box, first.objects)
    assert not set(first.objects) & set(second.objects)
    assert set(first.objects) | set(second.objects) == set(find_objects(truth, box))


def test_an_empty_place_is_background_and_costs_one_unit() -> None:
    truth = DenseTruth(np.zeros((64, 64), np.int32), {})
    work = paint_place(truth, SCHEMA, Box(8, 8, 40, 40))
    assert [region.class_index for region in work.regions] == [0]
    assert (work.objects, work.n_units) == ((), 1)
    assert Pace().seconds(work.effort) > 0.4


def test_without_a_background_class_only_objects_are_painted() -> None:
    truth = draw_truth(1)
    schema = LabelSchema.of("Stroma", "Nucleus")
    work = paint_place(truth, schema, Box(20, 20, 80, 80))
    assert {region.class_index for region in work.regions} == {1}


def shown(truth: DenseTruth, wrong: np.ndarray) -> ShownMask:
    return ShownMask("m", 1, (truth.instances > 0) ^ wrong)


def answer(truth: DenseTruth, one: ShownMask, box: Box) -> tuple[Work, np.ndarray]:
    work = review_place(truth, SCHEMA, box, [one])
    sent = {one.region_id: SentMask(1, 0, 0, one.mask, (one.mask.shape[0], one.mask.shape[1]))}
    return work, to_map(work, truth.instances.shape, sent)


def test_a_right_pre_annotation_is_accepted_with_a_look() -> None:
    truth = draw_truth(7)
    work, label_map = answer(truth, shown(truth, np.zeros((128, 128), bool)), Box(40, 40, 48, 48))
    assert [region.origin for region in work.regions] == ["prediction"]
    assert Pace().seconds(work.effort) == pytest.approx(1.2)
    inside = np.zeros((128, 128), bool)
    inside[40:88, 40:88] = True
    assert (label_map[~inside] == IGNORE_INDEX).all()
    assert (label_map[inside] == truth.to_label_map(SCHEMA)[inside]).mean() > 0.97


def test_a_missing_object_is_painted_and_a_false_one_erased() -> None:
    truth = draw_truth(7)
    box = Box(30, 30, 64, 64)
    missing = np.isin(truth.instances, find_objects(truth, box)[:1])
    false = np.zeros((128, 128), bool)
    free = truth.instances[box.slices] == 0
    row, column = np.argwhere(free)[len(np.argwhere(free)) // 2] + 30
    false[row - 4 : row + 4, column - 4 : column + 4] = True
    false &= truth.instances == 0
    work, label_map = answer(truth, shown(truth, missing | false), box)
    assert [region.origin for region in work.regions] == ["prediction-changed"]
    assert work.effort.strokes >= 2
    inside = np.zeros((128, 128), bool)
    inside[box.slices] = True
    wrong = (label_map != truth.to_label_map(SCHEMA)) & inside & (label_map != IGNORE_INDEX)
    assert wrong.sum() < 0.05 * inside.sum()
    assert (label_map[missing & inside] == 1).mean() > 0.8


def test_errors_along_an_outline_are_let_be() -> None:
    instances = np.zeros((96, 96), np.int32)
    instances[30:60, 30:60] = 1
    truth = DenseTruth.of_one_class(instances, 1)
    grown = np.zeros((96, 96), bool)
    grown[29:61, 29:61] = True
    work = review_place(truth, SCHEMA, Box(20, 20, 50, 50), [ShownMask("m", 1, grown)])
    assert work.effort.strokes == 0


def test_an_empty_pre_annotation_gets_a_region_of_its_own() -> None:
    truth = draw_truth(7)
    work = review_place(truth, SCHEMA, Box(30, 30, 64, 64), [])
    assert [(region.class_index, region.origin) for region in work.regions] == [(1, "manual")]


def test_more_errors_cost_more() -> None:
    truth = draw_truth(7)
    box = Box(20, 20, 90, 90)
    numbers = find_objects(truth, box)
    seconds = [
        Pace().seconds(
            review_place(truth, SCHEMA, box, [shown(truth, np.isin(truth.instances, numbers[:n]))]).effort
        )
        for n in (0, 2, 6)
    ]
    assert seconds[0] < seconds[1] < seconds[2]


def test_no_noise_sees_the_truth() -> None:
    truth = draw_truth(2)
    seen = perceive(truth, SCHEMA, NOISE_LEVELS["none"], np.random.default_rng(0))
    assert np.array_equal(seen.instances, truth.instances)
    assert seen.class_of == truth.class_of


def test_noise_grows_with_its_level_and_comes_from_the_rng_alone() -> None:
    truth = draw_truth(2, side=256)

    def wrong_share(level: str, seed: int) -> float:
        seen = perceive(truth, SCHEMA, NOISE_LEVELS[level], np.random.default_rng(seed))
        return float((seen.to_label_map(SCHEMA) != truth.to_label_map(SCHEMA)).mean())

    assert 0 < np.mean([wrong_share("medium", s) for s in range(4)]) < 0.06
    assert wrong_share("medium", 1) < wrong_share("heavy", 1)
    assert wrong_share("heavy", 1) == wrong_share("heavy", 1)


def test_a_wrong_class_is_another_one_where_there_is_one() -> None:
    truth = DenseTruth(np.array([[0, 1, 2]], np.int32), {1: 1, 2: 2})
    always = Noise(wrong_class_share=1.0)
    seen = perceive(truth, LabelSchema.of("Background", "A", "B"), always, np.random.default_rng(0))
    assert seen.class_of == {1: 2, 2: 1}
    only = DenseTruth(np.array([[0, 1]], np.int32), {1: 1})
    assert perceive(only, SCHEMA, always, np.random.default_rng(0)).class_of == {}


def test_what_is_not_seen_is_painted_over() -> None:
    truth = draw_truth(4)
    blind = perceive(truth, SCHEMA, Noise(missed_share=1.0), np.random.default_rng(0))
    label_map = to_map(paint_place(blind, SCHEMA, Box(20, 20, 80, 80)), truth.instances.shape)
    assert (label_map[truth.instances > 0] == 0).any()
    assert not (label_map == 1).any()
