"""Images at the exposure of one another: what the head learns beside the images as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core.network.feature_maps import FeatureMaps
from core.network.head import Head
from core.network.map_stores import KeptInMemory
from core.network.mixture import HEAD
from core.rounds import Example
from core.schema import IGNORE_INDEX
from core.training.beginning import measure
from core.training.exposures import MOST_CONTRAST, borrow_exposures, expose_like, measure_exposure
from core.training.quick_learners import QuickRound, train_quick
from core.training.sampling import OpenExample, open_positions

SIDE = 96


def test_an_image_takes_over_the_mean_and_contrast_of_the_other_one() -> None:
    rng = np.random.default_rng(0)
    dark, light = rng.normal(60, 10, (40, 50, 3)), rng.normal(150, 15, (30, 30, 3))
    images = [np.uint8(np.clip(image, 0, 255)) for image in (dark, light)]
    changed = borrow_exposures(images, 0)
    assert changed is not None
    assert (changed.shape, changed.dtype) == (images[0].shape, images[0].dtype)
    for ours, theirs in zip(measure_exposure(changed), measure_exposure(images[1]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.5)


def test_what_is_brighter_stays_brighter_and_nothing_leaves_the_range_of_its_type() -> None:
    image = np.arange(256, dtype=np.uint8)[None, :, None]
    changed = expose_like(image, measure_exposure(image), (np.array([250.0]), np.array([500.0])))
    assert (np.diff(changed.ravel().astype(int)) >= 0).all()
    assert changed.max() == 255


def test_contrast_changes_by_a_bounded_factor() -> None:
    image = np.float32([[[0.0], [1.0]]])
    changed = expose_like(image, measure_exposure(image), (np.array([0.5]), np.array([1000.0])))
    assert np.ptp(changed) == pytest.approx(MOST_CONTRAST)


def test_a_channel_without_contrast_is_moved_and_not_stretched() -> None:
    image = np.full((4, 4, 1), 7, np.uint16)
    changed = expose_like(image, measure_exposure(image), (np.array([900.0]), np.array([80.0])))
    assert np.unique(changed).tolist() == [900]


@pytest.mark.parametrize(
    "others",
    [[], [np.zeros((4, 4, 1), np.uint16)], [np.zeros((4, 4, 2), np.uint8)]],
    ids=["alone", "of another number type", "of other channels"],
)
def test_only_images_of_a_kind_lend_their_exposure(others: list[NDArray[Any]]) -> None:
    assert borrow_exposures([np.ones((4, 4, 1), np.uint8), *others], 0) is None


def test_an_image_looks_the_same_in_every_round_so_that_its_maps_can_be_kept() -> None:
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 255, (8, 8, 1), dtype=np.uint8) for _ in range(4)]
    first, again, later = (borrow_exposures(kept, 1) for kept in (images, images, [*images, images[0] + 1]))
    assert first is not None
    assert again is not None
    assert later is not None
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, later)


def _image(level: float, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Bright discs on a ground of a given level."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    truth = ((rows % 32 - 16) ** 2 + (columns % 32 - 16) ** 2 < 81).astype(np.uint8)
    image = rng.normal(level, 6, truth.shape) + 40 * truth
    return np.clip(image, 0, 255).astype(np.uint8)[..., None], truth


def _open(level: float, painted: int) -> OpenExample:
    """An image in which one class alone is painted."""
    rng = np.random.default_rng(painted)
    image, truth = _image(level, rng)
    truth[truth != painted] = IGNORE_INDEX
    nothing = np.full_like(truth, IGNORE_INDEX)
    return open_positions(Example(str(painted), image, truth, nothing), True, rng)


def _right(head: Head, maps: FeatureMaps, level: float) -> float:
    """Balanced accuracy on an image at an exposure that nobody painted in."""
    image, truth = _image(level, np.random.default_rng(9))
    whole = (slice(0, SIDE), slice(0, SIDE))
    said = head.logits_of_maps(maps.window(image, whole))[:, :SIDE, :SIDE].argmax(0).numpy()
    return float(np.mean([(said == index)[truth == index].mean() for index in (0, 1)]))


def test_the_head_does_not_take_the_light_of_an_image_for_the_class_that_was_painted_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examples = [_open(140, painted=0), _open(60, painted=1)]
    maps = FeatureMaps(measure(examples, 1), KeptInMemory())
    work = QuickRound(examples, 2, maps, [9, 9], lambda: 0.0, lambda: False, n_threads=1, n_steps=80)
    found = []
    for _ in range(2):
        learnt = train_quick([HEAD], work, np.random.default_rng(0))
        assert learnt.seen == {HEAD: 1.0}
        head = Head.from_tensors(learnt.learners[HEAD])
        found.append([_right(head, maps, level) for level in (60, 140)])
        monkeypatch.setattr("core.training.quick_learners.borrow_exposures", lambda images, index: None)
    borrowed, as_painted = found
    assert min(borrowed) > max(as_painted) + 0.2
