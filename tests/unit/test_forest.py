"""The forest answers as scikit-learn does, is kept without pickle, and never learns from too many pixels."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sklearn.ensemble import ExtraTreesClassifier

from core.learners.forest import Forest
from core.learners.forest_growth import (
    FEWEST_PIXELS_PER_CLASS,
    PIXELS_AT_ONCE,
    draw_pixels,
    from_sklearn,
    train_forest,
    weigh_classes,
)

N_CLASSES = 4
ABSENT = 1


def truth(n: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Rows of five features and labels of all classes but one, the last one rare."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 5)).astype(np.float32)
    labels = np.where(rows[:, 0] + 0.5 * rng.normal(size=n) > 0, 2, 0).astype(np.uint8)
    labels[rows[:, 1] > 1.7] = 3
    return rows, labels


@pytest.fixture(scope="module")
def forest() -> Forest:
    return train_forest(*truth(1500), N_CLASSES, seed=7, n_trees=10)


def test_probabilities_are_those_of_scikit_learn() -> None:
    rows, labels = truth(1500)
    theirs = ExtraTreesClassifier(10, class_weight=weigh_classes(labels), random_state=7).fit(rows, labels)
    forest = from_sklearn([tree.tree_ for tree in theirs.estimators_], theirs.classes_, N_CLASSES)
    asked = truth(3000, seed=1)[0]
    expected = np.zeros((len(asked), N_CLASSES))
    expected[:, theirs.classes_] = theirs.predict_proba(asked)
    assert np.allclose(forest.probabilities(asked), expected, rtol=0, atol=1e-6)


def test_a_value_on_a_threshold_goes_where_scikit_learn_sends_it() -> None:
    """Thresholds between neighbouring float32 numbers are no float32 numbers themselves."""
    low = np.float32(8)
    high = np.nextafter(low, np.float32(9))
    rows = np.array([[low], [high]] * 50, np.float32)
    forest = train_forest(rows, np.array([0, 1] * 50, np.uint8), 2, seed=0, n_trees=5)
    assert np.allclose(forest.probabilities(rows[:2]), [[1, 0], [0, 1]])


def test_a_class_that_little_was_painted_of_is_found_where_values_overlap() -> None:
    """One pixel in a hundred was painted of a class that fills half of the image."""

    def draw(counts: list[int], seed: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        labels = np.repeat(np.array([0, 1], np.uint8), counts)
        values = np.random.default_rng(seed).normal(3.0 * labels, 1.0)
        return values[:, None].astype(np.float32), labels

    rows, labels = draw([5000, 50], 0)
    asked, truth = draw([2000, 2000], 1)
    found = train_forest(rows, labels, 2, seed=0).probabilities(asked).argmax(1)
    plain = ExtraTreesClassifier(32, min_samples_leaf=3, random_state=0).fit(rows, labels).predict(asked)
    assert np.mean(found[truth == 1] == 1) > np.mean(plain[truth == 1] == 1) + 0.1
    assert np.mean(found == truth) > np.mean(plain == truth) + 0.04


def test_trees_see_more_pixels_together_than_one_group_of_them_has_time_for() -> None:
    rows = np.arange(2 * PIXELS_AT_ONCE, dtype=np.float32)[:, None]
    labels = (np.arange(len(rows)) % 2).astype(np.uint8)
    few = train_forest(rows, labels, 2, seed=0, n_trees=1)
    more = train_forest(rows, labels, 2, seed=0, n_trees=9)
    assert len(np.unique(more.threshold)) > len(np.unique(few.threshold)) * 4
    second = more.child[more.roots[8] :]
    assert not np.array_equal(second[: len(few.child)] - more.roots[8], few.child[: len(second)])


def test_the_same_seed_grows_the_same_trees(forest: Forest) -> None:
    again = train_forest(*truth(1500), N_CLASSES, seed=7, n_trees=10, n_threads=2)
    assert all(np.array_equal(getattr(forest, f.name), getattr(again, f.name)) for f in fields(Forest))


def test_threads_change_no_answer(forest: Forest) -> None:
    rows = truth(40_000)[0]
    assert np.array_equal(forest.probabilities(rows, n_threads=2), forest.probabilities(rows))


def test_probabilities_sum_to_one_and_an_absent_class_has_none(forest: Forest) -> None:
    found = forest.probabilities(truth(500, seed=2)[0])
    assert np.allclose(found.sum(1), 1, atol=1e-6)
    assert not found[:, ABSENT].any()


def test_some_of_the_trees_answer_as_they_do_among_all(forest: Forest) -> None:
    rows, labels = truth(1500)
    few = train_forest(rows, labels, N_CLASSES, seed=7, n_trees=8)  # the first group of the ten
    first = forest.first_trees(8)
    assert np.array_equal(first.probabilities(rows), few.probabilities(rows))
    assert len(Forest.from_tensors(first.to_tensors()).child) < len(forest.child)
    assert forest.first_trees(10) is forest


def test_trees_too_large_for_two_bytes_answer_alike(forest: Forest, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = truth(3000, seed=1)[0]
    expected = forest.probabilities(rows)
    far = np.dtype([("threshold", "f4"), ("step", "i4"), ("feature", "i4")])
    monkeypatch.setattr("core.learners.forest._NODE", far)
    again = Forest(**{f.name: getattr(forest, f.name) for f in fields(Forest)})
    assert again._nodes.dtype == far
    assert np.array_equal(again.probabilities(rows), expected)


def test_a_child_beyond_two_bytes_is_reached() -> None:
    """The root's children lie behind a tree that nobody asks, 70,000 nodes away."""
    n = 70_000
    own = np.arange(n + 3, dtype=np.int32)
    child, threshold = own.copy(), np.full(n + 3, np.inf, np.float32)
    child[0], threshold[0] = n + 1, 0.5
    leaf = np.zeros(n + 3, np.int32)
    leaf[n + 2] = 1
    shares, roots = np.eye(2, dtype=np.float32), np.zeros(1, np.int32)
    far = Forest(np.zeros(n + 3, np.int32), threshold, child, leaf, shares, roots)
    assert far.probabilities(np.array([[0.0], [1.0]], np.float32)).tolist() == [[1, 0], [0, 1]]


def test_no_row_has_no_answer(forest: Forest) -> None:
    assert forest.probabilities(np.empty((0, 5), np.float32)).shape == (0, N_CLASSES)


def test_a_forest_survives_safetensors(forest: Forest, tmp_path: Path) -> None:
    save_file(forest.to_tensors(), tmp_path / "forest.safetensors")
    loaded = Forest.from_tensors(load_file(tmp_path / "forest.safetensors"))
    rows = truth(200)[0]
    assert np.array_equal(loaded.probabilities(rows), forest.probabilities(rows))


def test_one_class_alone_is_always_the_answer() -> None:
    forest = train_forest(np.zeros((5, 2), np.float32), np.full(5, 2, np.uint8), 3, seed=0, n_trees=2)
    assert forest.probabilities(np.ones((1, 2), np.float32)).tolist() == [[0, 0, 1]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("child", [5, 0, 2]),  # a walk would go back to the root for ever
        ("child", [2, 1, 2]),  # the right child would be outside
        ("child", [-1, 1, 2]),
        ("threshold", [0.0, 1.0, np.inf]),  # a pixel would walk on from a leaf
        ("threshold", [0.0, np.nan, np.inf]),
        ("feature", [-1, 0, 0]),
        ("leaf", [0, 0, 2]),
        ("roots", [3]),
        ("roots", []),
        ("leaf", [0, 0]),
        ("child", [0, 1]),
    ],
)
def test_arrays_that_lead_outside_are_refused(name: str, value: list[float]) -> None:
    tensors = {
        "feature": torch.tensor([0, 0, 0], dtype=torch.int32),
        "threshold": torch.tensor([0.5, np.inf, np.inf]),
        "child": torch.tensor([1, 1, 2], dtype=torch.int32),
        "leaf": torch.tensor([0, 0, 1], dtype=torch.int32),
        "shares": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        "roots": torch.tensor([0], dtype=torch.int32),
    }
    assert Forest.from_tensors(tensors).probabilities(np.ones((1, 1), np.float32)).tolist() == [[0, 1]]
    with pytest.raises(ValueError, match="do not fit"):
        Forest.from_tensors({**tensors, name: torch.tensor(value, dtype=tensors[name].dtype)})


@pytest.mark.parametrize("name", [f.name for f in fields(Forest)])
def test_a_missing_or_wrongly_typed_array_is_refused(forest: Forest, name: str) -> None:
    tensors = forest.to_tensors()
    with pytest.raises(ValueError, match=name):
        Forest.from_tensors({key: value for key, value in tensors.items() if key != name})
    with pytest.raises(ValueError, match="do not fit"):
        Forest.from_tensors({**tensors, name: tensors[name].to(torch.float64)})


def test_rows_with_too_few_features_are_refused(forest: Forest) -> None:
    with pytest.raises(ValueError, match="reads column"):
        forest.probabilities(np.zeros((3, 2), np.float32))


def test_labels_that_no_class_has_are_refused() -> None:
    with pytest.raises(ValueError, match="label 4 of 4"):
        train_forest(np.zeros((2, 1), np.float32), np.array([0, 4], np.uint8), 4, seed=0)


def test_no_more_pixels_are_drawn_than_a_forest_may_learn_from() -> None:
    labels = np.random.default_rng(0).integers(0, 3, 5 * PIXELS_AT_ONCE).astype(np.uint8)
    drawn = draw_pixels(labels, np.random.default_rng(1))
    assert PIXELS_AT_ONCE - 3 <= len(drawn) <= PIXELS_AT_ONCE
    assert len(np.unique(drawn)) == len(drawn)


def test_a_rare_class_keeps_its_pixels() -> None:
    labels = np.zeros(10 * PIXELS_AT_ONCE, np.uint8)
    labels[:300], labels[1000 : 1000 + 2 * FEWEST_PIXELS_PER_CLASS] = 3, 2
    counts = np.bincount(labels[draw_pixels(labels, np.random.default_rng(1))])
    assert counts[3] == 300
    assert counts[2] >= FEWEST_PIXELS_PER_CLASS


def test_a_small_limit_is_shared_by_all_classes() -> None:
    labels = np.repeat(np.arange(5, dtype=np.uint8), 1000)
    drawn = draw_pixels(labels, np.random.default_rng(0), 50)
    assert np.bincount(labels[drawn]).tolist() == [10] * 5


def test_few_pixels_are_all_learnt_from() -> None:
    labels = np.zeros(10, np.uint8)
    assert draw_pixels(labels, np.random.default_rng(0)).tolist() == list(range(10))
