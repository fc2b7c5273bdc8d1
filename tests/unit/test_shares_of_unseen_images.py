"""What learners say of images that they did not see decides among the quick ones, beside a hold-out too."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from core.network.mixture import FOREST, HEAD, NETWORK, TUNED, Share
from core.training.candidate import MOST_BY_BLOCKS, Judges, find_shares
from core.training.evaluation import HeldOutBlock
from core.training.folds import HeldBack
from core.training.painted_pixels import Painted

N = 2500
LABELS = np.random.default_rng(0).integers(0, 2, N).astype(np.uint8)
TRUTH = np.eye(2, dtype=np.float32)[LABELS]


def says(strength: float, seed: int) -> NDArray[np.float32]:
    return (TRUTH * strength + np.random.default_rng(seed).normal(size=TRUTH.shape)).astype(np.float32)


def blocks() -> list[HeldOutBlock]:
    image = np.zeros((50, 50, 1), np.uint8)
    window = (slice(0, 50), slice(0, 50))
    return [HeldOutBlock("a", image, LABELS.reshape(50, 50), image, window)]


HOLD_OUT = {NETWORK: says(3, 1), HEAD: says(3, 2), FOREST: says(3, 3)}
"""In the images that they saw the rest of, all are equally good."""

PLACES = Painted(np.zeros(N, np.intp), np.zeros((N, 2), np.int64), LABELS)
ELSEWHERE = HeldBack({HEAD: says(0, 4), FOREST: says(3, 5)}, PLACES)
"""Of an image that they did not see the head knows nothing."""


def find(names: tuple[str, ...], elsewhere: HeldBack | None) -> dict[str, Share]:
    logits = {name: HOLD_OUT[name] for name in names}
    return find_shares(names, logits, Judges(blocks(), elsewhere), np.random.default_rng(1))[0]


def test_a_learner_that_fails_on_another_image_loses_weight_though_the_hold_out_likes_it() -> None:
    before, now = find((HEAD, FOREST), None), find((HEAD, FOREST), ELSEWHERE)
    assert before[HEAD].weight == pytest.approx(0.5, abs=0.15)
    assert now[HEAD].weight < before[HEAD].weight / 2
    assert sum(share.weight for share in now.values()) == pytest.approx(1)


LIKED = {NETWORK: says(6, 7), HEAD: says(1, 2), FOREST: says(1, 3)}
DISLIKED = {**HOLD_OUT, NETWORK: says(1, 7)}
"""What the hold-out would give most of the answer, and what little."""


def find_beside_hold_out(
    logits: dict[str, NDArray[np.float32]],
    elsewhere: HeldBack | None = ELSEWHERE,
    base: NDArray[np.float32] | None = None,
) -> dict[str, Share]:
    judges = Judges(blocks(), elsewhere, base=base)
    return find_shares(tuple(logits), logits, judges, np.random.default_rng(1))[0]


def test_what_little_the_hold_out_gives_the_network_it_keeps() -> None:
    before, now = find_beside_hold_out(DISLIKED, None), find_beside_hold_out(DISLIKED)
    assert 0 < before[NETWORK].weight < MOST_BY_BLOCKS
    assert now[NETWORK] == before[NETWORK]
    assert now[HEAD].weight < before[HEAD].weight / 2
    assert sum(share.weight for share in now.values()) == pytest.approx(1)


def test_a_network_that_the_hold_out_likes_has_seen_its_images_and_so_counts_just_some() -> None:
    assert find_beside_hold_out(LIKED, None)[NETWORK].weight > 0.55
    now = find_beside_hold_out(LIKED)
    assert now[NETWORK].weight == pytest.approx(MOST_BY_BLOCKS)
    assert now[FOREST].weight > 2 * now[HEAD].weight
    assert sum(share.weight for share in now.values()) == pytest.approx(1)


def test_so_does_an_encoder_that_was_tuned_on_them() -> None:
    said = {NETWORK: says(1, 8), HEAD: says(1, 2), FOREST: says(1, 3), TUNED: says(6, 7)}
    assert find_beside_hold_out(said, None)[TUNED].weight > 1.3 * MOST_BY_BLOCKS
    now = find_beside_hold_out(said, base=says(6, 6))
    assert now[TUNED].weight == pytest.approx(MOST_BY_BLOCKS)
    assert sum(share.weight for share in now.values()) == pytest.approx(1)


def test_one_whose_base_finds_images_that_it_never_saw_may_count_more() -> None:
    assert find_beside_hold_out(LIKED, base=says(6, 6))[NETWORK].weight > 0.55
    assert find_beside_hold_out(LIKED, base=says(0, 6)) == find_beside_hold_out(LIKED)


def test_one_that_has_become_worse_than_its_base_does_not() -> None:
    assert find_beside_hold_out(DISLIKED, base=says(6, 6)) == find_beside_hold_out(DISLIKED)


def find_without_hold_out(
    base: NDArray[np.float32] | None, names: tuple[str, ...] = (NETWORK, HEAD, FOREST)
) -> dict[str, Share]:
    nothing = dict.fromkeys(names, TRUTH[:0])
    return find_shares(names, nothing, Judges([], ELSEWHERE, base=base), np.random.default_rng(1))[0]


def test_a_network_whose_base_finds_what_was_painted_counts_more_where_nothing_is_held_out() -> None:
    now = find_without_hold_out(says(6, 6))
    assert now[NETWORK].weight > 0.55
    assert sum(share.weight for share in now.values()) == pytest.approx(1)
    assert now[HEAD].weight < now[FOREST].weight


def test_beside_an_encoder_that_was_tuned_before_no_learner_counts_less_than_nothing() -> None:
    names = (NETWORK, HEAD, FOREST, TUNED)
    lost = HeldBack({HEAD: says(0, 4), FOREST: says(0, 5)}, PLACES)
    judges = Judges([], lost, base=says(6, 6))
    now, _ = find_shares(names, dict.fromkeys(names, TRUTH[:0]), judges, np.random.default_rng(1))
    assert now[NETWORK].weight > now[TUNED].weight > 0
    assert min(share.weight for share in now.values()) >= 0
    assert sum(share.weight for share in now.values()) == pytest.approx(1)


def test_one_whose_base_does_not_know_the_look_counts_what_it_counts_anyway() -> None:
    assert find_without_hold_out(says(0, 6)) == find_without_hold_out(None)


def test_pixels_that_the_base_was_not_asked_for_say_nothing_about_it() -> None:
    asked = says(6, 6)
    asked[::2] = np.nan
    assert find_without_hold_out(asked)[NETWORK].weight == pytest.approx(
        find_without_hold_out(says(6, 6))[NETWORK].weight, abs=0.05
    )
    assert find_without_hold_out(np.full_like(asked, np.nan)) == find_without_hold_out(None)


def test_in_a_draft_the_base_itself_answers_where_it_finds_what_was_painted() -> None:
    now = find_without_hold_out(says(6, 6), (HEAD, FOREST))
    assert now[NETWORK].weight > 0.55
    assert sum(share.weight for share in now.values()) == pytest.approx(1)


@pytest.mark.parametrize("strength", [0, np.nan])
def test_in_a_draft_a_base_that_knows_nothing_of_it_is_not_run(strength: float) -> None:
    names = (HEAD, FOREST)
    assert find_without_hold_out(says(strength, 6), names) == find_without_hold_out(None, names)
