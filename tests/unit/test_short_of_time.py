"""Quick learners that run out of time: the forest is always there, and what saw little is believed less."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from core.errors import RoundCancelledError
from core.learners.forest import Forest
from core.network.encoder import N_FEATURES
from core.network.feature_maps import FeatureMaps
from core.network.map_stores import KeptInMemory
from core.network.mixture import FOREST, HEAD, QUICK
from core.rounds import Example
from core.schema import IGNORE_INDEX
from core.training.beginning import measure
from core.training.clock import Clock
from core.training.folds import FEWEST_FOLDS, N_FOLDS, HeldBack, ask_folds, deal_images
from core.training.painted_pixels import Painted, visiting_order
from core.training.quick_learners import FEWEST_TREES, QuickLearnt, QuickRound, train_quick
from core.training.sampling import OpenExample, open_positions
from core.training.stacking import prior_shares

SIDE, N_IMAGES = 64, 6


def _open(seed: int) -> OpenExample:
    """A dark and a bright half, of which two strips are painted."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((SIDE, SIDE), np.uint8)
    truth[:, SIDE // 2 :] = 1
    image = np.clip(rng.normal(80, 10, truth.shape) + 90 * truth, 0, 255).astype(np.uint8)[..., None]
    painted = np.full_like(truth, IGNORE_INDEX)
    painted[8:12], painted[40:44] = truth[8:12], truth[40:44]
    nothing = np.full_like(truth, IGNORE_INDEX)
    return open_positions(Example(str(seed), image, painted, nothing), True, rng)


def _train(pace: Callable[[], float], *, needs_folds: bool = False) -> QuickLearnt:
    examples = [_open(seed) for seed in range(N_IMAGES)]
    maps = FeatureMaps(measure(examples, 1), KeptInMemory())
    n_px = sum(len(at) for at in examples[0].by_class.values()) * N_IMAGES // 2
    work = QuickRound(
        examples,
        2,
        maps,
        [n_px, n_px],
        pace,
        should_stop=lambda: False,
        n_threads=1,
        n_steps=60,
        needs_folds=needs_folds,
    )
    return train_quick(QUICK, work, np.random.default_rng(0))


def _ask_folds(
    painted: Painted,
    *,
    is_late: bool = False,
    check: Callable[[], None] = lambda: None,
    n_classes: int = 2,
) -> HeldBack | None:
    n_px = len(painted)
    columns, features = torch.randn(n_px, N_FEATURES), np.zeros((n_px, 5), np.float32)
    rng = np.random.default_rng(0)
    return ask_folds(
        painted, columns, features, n_classes, rng, n_threads=1, is_late=lambda: is_late, check=check
    )


def _trees(learnt: QuickLearnt) -> int:
    return len(Forest.from_tensors(learnt.learners[FOREST]).roots)


@pytest.fixture(scope="module")
def starved() -> QuickLearnt:
    return _train(lambda: 9.0, needs_folds=True)


def test_without_any_time_there_is_a_forest_of_a_few_trees_and_a_head(starved: QuickLearnt) -> None:
    assert set(starved.learners) == set(QUICK)
    assert _trees(starved) == FEWEST_TREES
    assert starved.held_back is None


def test_without_any_time_one_image_with_two_classes_has_to_do(starved: QuickLearnt) -> None:
    assert starved.seen == pytest.approx({FOREST: 1 / N_IMAGES, HEAD: 1 / N_IMAGES})


def test_with_time_all_of_the_truth_is_seen_and_each_image_is_asked_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("core.training.folds.FOLD_STEPS", 10)
    learnt = _train(lambda: 0.0, needs_folds=True)
    assert learnt.seen == {FOREST: 1.0, HEAD: 1.0}
    assert _trees(learnt) > FEWEST_TREES
    assert learnt.held_back is not None
    assert len(learnt.held_back.painted.labels) > 0


def test_the_forest_has_its_pixels_where_the_head_had_no_time_to_look() -> None:
    in_time = iter([0.0] * N_IMAGES)  # asked before each image that is described
    learnt = _train(lambda: next(in_time, 9.0))
    assert learnt.seen == pytest.approx({FOREST: 1.0, HEAD: 1 / N_IMAGES})


def test_images_are_met_before_more_trees_are_grown() -> None:
    in_time = iter([0.0] * 2 * N_IMAGES)
    learnt = _train(lambda: next(in_time, 9.0))
    assert learnt.seen == {FOREST: 1.0, HEAD: 1.0}
    assert _trees(learnt) == FEWEST_TREES


def test_a_class_of_one_image_is_met_early_whatever_the_order() -> None:
    image = np.repeat(np.arange(40), 10)
    labels = np.where(image == 17, 2, image % 2).astype(np.uint8)
    painted = Painted(image, np.zeros((len(image), 2), np.int64), labels)
    for seed in range(20):
        order = visiting_order(painted, np.random.default_rng(seed))
        assert sorted(order) == list(range(40))
        assert {0, 1, 2} == set(np.concatenate([labels[image == first] for first in order[:3]]))


def test_two_folds_are_asked_however_late_it_is() -> None:
    n_px = 40
    painted = Painted(
        np.arange(n_px) % 8, np.zeros((n_px, 2), np.int64), np.tile([0, 0, 1, 1], 10).astype(np.uint8)
    )
    held_back = _ask_folds(painted, is_late=True)
    assert held_back is not None
    assert len(held_back.painted.labels) == FEWEST_FOLDS * n_px // N_FOLDS


def test_a_fold_is_not_asked_about_a_class_that_its_learners_never_saw() -> None:
    image = np.repeat(np.arange(8), 10)
    labels = np.where(image == 3, 2, np.arange(80) % 2).astype(np.uint8)
    held_back = _ask_folds(Painted(image, np.zeros((80, 2), np.int64), labels), n_classes=3)
    assert held_back is not None
    assert np.bincount(held_back.painted.labels).tolist() == [35, 35]


def test_the_only_two_images_of_a_class_answer_for_each_other() -> None:
    for seed in range(20):
        image = np.repeat(np.arange(8), 10)
        labels = np.where((image < 2) & (np.arange(80) % 10 < 3), 2, np.arange(80) % 2).astype(np.uint8)
        painted = Painted(image, np.zeros((80, 2), np.int64), labels)
        fold = deal_images(painted, N_FOLDS, np.random.default_rng(seed))
        assert len(np.unique(fold[labels == 2])) == 2
        assert np.bincount(fold).tolist() == [20] * N_FOLDS


@pytest.mark.parametrize(("opened_s", "rest_s"), [(0.0, 2.7), (0.7, 2.0), (9.0, 1.0)])
def test_a_draft_takes_the_time_to_open_images_from_its_own(opened_s: float, rest_s: float) -> None:
    moments = iter([opened_s, opened_s + rest_s / 2, opened_s + rest_s])
    pace = Clock(lambda: next(moments), 0.0, 3.0, None, QUICK).quick_pace()
    assert (pace(), pace()) == pytest.approx((0.5, 1.0))


def test_what_saw_little_counts_less_where_nothing_is_held_out(starved: QuickLearnt) -> None:
    even = prior_shares((HEAD, FOREST))
    shares = prior_shares((HEAD, FOREST), {HEAD: 0.2, FOREST: 1.0})
    assert shares[HEAD].weight < even[HEAD].weight / 2
    assert sum(share.weight for share in shares.values()) == pytest.approx(1)


def test_quick_learners_stop_when_asked_to() -> None:
    examples = [_open(0)]
    maps = FeatureMaps(measure(examples, 1), KeptInMemory())
    work = QuickRound(examples, 2, maps, [9, 9], lambda: 0.0, should_stop=lambda: True)
    with pytest.raises(RoundCancelledError):
        train_quick(QUICK, work, np.random.default_rng(0))


def test_a_fold_is_stopped_within_a_step() -> None:
    n_px = 40
    painted = Painted(
        np.arange(n_px) % 4, np.zeros((n_px, 2), np.int64), np.tile([0, 1], 20).astype(np.uint8)
    )
    asked: list[int] = []

    def check() -> None:
        asked.append(1)
        if len(asked) == 3:  # before the fold, and before two steps of its head
            raise RoundCancelledError("stopped")

    with pytest.raises(RoundCancelledError):
        _ask_folds(painted, check=check)
    assert len(asked) == 3
