"""Near-duplicates step back, rare classes get their share, and nothing else changes its place."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.asking.diversity import (
    HELD_BACK,
    LEAST_SCORE_SHARE,
    MAX_CANDIDATES,
    RARE_SHARE,
    find_rare_classes,
    spread_out,
)
from core.schema import LabelSchema

A, B, C = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]


def order(scores: NDArray[np.float64]) -> list[int]:
    return [int(i) for i in np.argsort(-scores, kind="stable")]


def test_the_second_of_two_that_look_the_same_is_held_back() -> None:
    found = spread_out([0.9, 0.8, 0.5, 0.4], np.array([A, A, B, C]), [False] * 4)
    assert found.tolist() == [0.9, pytest.approx(0.8 * HELD_BACK), 0.5, 0.4]
    assert order(found) == [0, 2, 3, 1]


def test_of_many_that_look_the_same_each_is_held_back_more_and_they_keep_their_order() -> None:
    found = spread_out([0.9, 0.8, 0.7, 0.5], np.array([A, A, A, B]), [False] * 4)
    assert order(found) == [0, 3, 1, 2]
    assert found[2] == pytest.approx(0.7 * HELD_BACK**2)


def test_where_all_look_the_same_the_order_stays() -> None:
    scores = [0.3, 0.9, 0.5]
    assert order(spread_out(scores, np.array([A, A, A]), [False] * 3)) == [1, 2, 0]


def test_slightly_different_images_among_others_are_near_duplicates_too() -> None:
    rng = np.random.default_rng(0)
    scenes = rng.random((20, 64))
    twin = scenes[0] + rng.normal(0, 0.02, 64)
    embeddings = np.vstack([scenes, twin])
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    scores = np.linspace(0.9, 0.5, 21)
    found = spread_out(scores, embeddings.astype(np.float16), [False] * 21)
    assert found[:20].tolist() == scores[:20].tolist()
    assert found[20] == pytest.approx(0.5 * HELD_BACK)


def test_images_of_one_kind_are_not_near_duplicates_only_because_there_is_another_kind() -> None:
    rng = np.random.default_rng(0)
    kinds = np.repeat([[5.0] * 32 + [0.0] * 32, [0.0] * 32 + [5.0] * 32], 10, axis=0)
    embeddings = kinds + rng.normal(0, 1.2, kinds.shape)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    scores = np.linspace(0.9, 0.5, 20)
    assert spread_out(scores, embeddings, [False] * 20).tolist() == scores.tolist()


def test_what_is_not_known_is_like_no_other() -> None:
    scores = [0.9, 0.8, 0.7]
    assert spread_out(scores, np.zeros((3, 4)), [False] * 3).tolist() == scores
    assert spread_out([0.9, 0.8, 0.7, 0.1], np.array([[0.0] * 3, A, [0.0] * 3, B]), [False] * 4)[2] == 0.7


def test_a_rare_class_comes_in_at_the_fifth_place() -> None:
    scores = np.linspace(0.9, 0.4, 20)
    is_rare = np.arange(20) == 12
    found = spread_out(scores, np.zeros((20, 3)), is_rare)
    assert order(found).index(12) == round(1 / RARE_SHARE) - 1
    assert np.delete(found, 12).tolist() == np.delete(scores, 12).tolist()
    assert found[3] > found[12] > found[4]


def test_rare_classes_get_no_more_than_their_share_and_need_no_help_where_they_lead() -> None:
    scores = np.linspace(0.9, 0.6, 40)
    late = order(spread_out(scores, np.zeros((40, 3)), np.arange(40) >= 20))
    assert [sum(i >= 20 for i in late[:n]) for n in (4, 5, 10, 20)] == [0, 1, 2, 4]
    leading = spread_out(scores, np.zeros((40, 3)), np.arange(40) < 20)
    assert leading.tolist() == scores.tolist()


def test_a_model_that_is_sure_of_a_rare_class_does_not_ask_about_it() -> None:
    scores = [0.9] * 9 + [0.9 * LEAST_SCORE_SHARE - 0.01]
    assert spread_out(scores, np.zeros((10, 3)), [False] * 9 + [True])[9] == scores[9]


def test_near_duplicates_do_not_fill_the_share_of_a_rare_class() -> None:
    scores = np.linspace(0.9, 0.6, 30)
    scenes = np.eye(30)
    scenes[21:] = scenes[20]
    found = order(spread_out(scores, scenes, np.arange(30) >= 20))
    assert sum(i >= 20 for i in found[:15]) == 1


def test_a_class_is_rare_compared_with_the_other_object_classes() -> None:
    three = LabelSchema.of("Background", "A", "B", "C")
    assert find_rare_classes({0: 500, 1: 40, 2: 40, 3: 12}, three) == (3,)
    assert find_rare_classes({0: 500, 1: 40, 2: 40}, three) == (3,)
    assert find_rare_classes({1: 40, 2: 30, 3: 35}, three) == ()
    assert find_rare_classes({}, three) == ()
    assert find_rare_classes({1: 40}, LabelSchema.of("Background", "A")) == ()


def test_the_work_is_bounded_whatever_the_pool() -> None:
    rng = np.random.default_rng(0)
    n = 10_000
    scores, embeddings = rng.random(n), rng.random((n, 128)).astype(np.float16)
    started = time.process_time()
    found = spread_out(scores, embeddings, rng.random(n) < 0.1)
    assert time.process_time() - started < 1.0
    below = np.argsort(-scores)[MAX_CANDIDATES:]
    assert (found[below] == scores[below]).all()


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2,\) scores, \(3, 2\) embeddings"):
        spread_out([0.5, 0.4], np.zeros((3, 2)), [False, False])


CANDIDATES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4), st.booleans()), min_size=1, max_size=30)


@given(CANDIDATES)
def test_scores_stay_in_range_and_doing_it_again_from_the_same_scores_gives_the_same(
    candidates: list[tuple[float, int, bool]],
) -> None:
    scores, scenes, rare = (list(column) for column in zip(*candidates, strict=True))
    embeddings = np.eye(5)[scenes]
    found = spread_out(scores, embeddings, rare)
    assert ((found >= 0) & (found <= 1)).all()
    assert found.tolist() == spread_out(scores, embeddings, rare).tolist()
    raised = found > np.asarray(scores)
    assert not (raised & ~np.asarray(rare)).any(), "only what has a rare class is put before others"
