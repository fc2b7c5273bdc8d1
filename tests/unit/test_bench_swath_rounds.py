"""Rounds of swaths: arms differ by where they paint alone, and what is counted is what was said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench import Options
from bench.domain_sets import DomainSet, MappedImage
from bench.swath_arms import ARMS, Place, Situation
from bench.swath_figures import Runs, difference, find_goals, hit_ratio, review_shares, to_rows
from bench.swath_rounds import run
from bench.swath_study import Bench, SwathSettings, count_hits, draw_parts
from bench.swath_work import paint_everything, paint_swath, review
from core.painting import Box
from core.prediction import Prediction
from core.schema import IGNORE_INDEX, LabelSchema
from simulation.brush import Pace

SCHEMA = LabelSchema.of("Sky", "Road", "Car")
SHAPE = (96, 96)


def predicted(labels: NDArray[np.uint8], doubt: NDArray[np.float64] | float = 0.5) -> Prediction:
    nats = np.broadcast_to(np.asarray(doubt, np.float16), labels.shape).copy()
    half = np.full(labels.shape, 0.5, np.float16)
    return Prediction(labels, np.full_like(labels, 1), half, nats, nats, np.zeros_like(nats), half)


def situation(
    truth: dict[str, NDArray[np.uint8]], looked: dict[str, Prediction], number: int = 1
) -> Situation:
    rng = np.random.default_rng(0)
    pool = {name: MappedImage(name, np.zeros((*m.shape, 1), np.uint8), m) for name, m in truth.items()}
    painted = {name: np.full(m.shape, IGNORE_INDEX, np.uint8) for name, m in truth.items()}
    painted[min(painted)][:4, :4] = 0
    embeddings = {name: rng.random(3) for name in truth}
    return Situation(SCHEMA, pool, painted, looked, {}, embeddings, number, 4, 4)


def halves(value: int = 1) -> NDArray[np.uint8]:
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 48:] = value
    return labels


@pytest.fixture(scope="module")
def bench() -> Bench:
    rng = np.random.default_rng(1)
    images = []
    for index in range(6):
        labels = rng.integers(0, 3, (3, 3), np.uint8).repeat(32, 0).repeat(32, 1)
        grey = labels * 60 + rng.integers(0, 40, SHAPE)
        images.append(MappedImage(f"i{index}", grey[..., None].astype(np.uint8), labels))
    domain = DomainSet("drawn", SCHEMA, tuple(images[:4]), tuple(images[4:]))
    return Bench.of(domain, SwathSettings(rounds=1, swaths=2, steps=5, looks=3, pool=4, judged=2))


def test_arms_of_a_seed_begin_alike_and_the_same_seed_gives_the_same(bench: Bench) -> None:
    results = {arm: bench.run_arm(arm, 0) for arm in ("random", "ours", "oracle")}
    assert len({tuple(result["dice"][:1]) for result in results.values()}) == 1
    assert bench.run_arm("ours", 0) == results["ours"]
    assert bench.run_arm("own", 1)["dice"] != bench.run_arm("own", 0)["dice"]
    assert results["ours"]["swaths"] == [2, 4]
    assert results["random"]["hits"] is None
    assert 0 <= bench.run_dense(0)["dice"][0] <= 1


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_names_as_many_places_as_there_are_swaths(arm: str) -> None:
    truth = {name: halves(index % 3) for index, name in enumerate("abcdef")}
    looked = {name: predicted(halves(2)) for name in truth}
    places = ARMS[arm](situation(truth, looked), np.random.default_rng(3))
    assert len(places) == (1 if arm == "everything" else 4)
    for place in places:
        assert place.image in truth
        assert place.box is None or truth[place.image][place.box.slices].size


def test_the_rarest_class_is_asked_about_first_where_doubt_is_equal() -> None:
    truth = {"a": halves(), "b": halves()}
    with_car = halves()
    with_car[:, 48:] = 2
    now = situation(truth, {"a": predicted(halves()), "b": predicted(with_car)})
    now.painted["a"][8:90, 8:90] = np.tile(np.uint8([0, 1]), (82, 41))
    (first, *_) = ARMS["rare"](now, np.random.default_rng(0))
    assert first.image == "b"
    assert first.box is not None
    assert first.box.left + first.box.width > 48


def test_diverse_goes_to_the_image_that_looks_least_like_the_painted_ones() -> None:
    truth = {name: halves() for name in "abc"}
    now = situation(truth, {name: predicted(halves()) for name in "bc"})
    now.embeddings.update(a=np.array([1.0, 0, 0]), b=np.array([0.9, 0.1, 0]), c=np.array([0, 0, 1.0]))  # type: ignore[attr-defined]
    assert [place.image for place in ARMS["diverse"](now, np.random.default_rng(0))] == ["c", "b"]


def test_changed_prefers_what_the_model_before_said_otherwise() -> None:
    truth = {"a": halves(), "b": halves()}
    now = situation(truth, {name: predicted(halves()) for name in truth})
    now.before.update(a=predicted(halves()), b=predicted(halves(2)))  # type: ignore[attr-defined]
    assert ARMS["changed"](now, np.random.default_rng(0))[0].image == "b"


def test_fading_leaves_less_to_the_person_in_every_round() -> None:
    truth = {name: halves() for name in "abcdef"}
    looked = {name: predicted(halves()) for name in truth}
    n_own = [
        sum(
            place.box is None
            for place in ARMS["fading"](situation(truth, looked, n), np.random.default_rng(0))
        )
        for n in (1, 2, 4)
    ]
    assert n_own == [3, 2, 1]


def test_hits_count_wrong_pixels_off_edges_and_off_what_is_painted() -> None:
    truth, answer = halves(), halves()
    answer[60:70, 10:20] = 2
    answer[:, 46:48] = 1  # a ragged edge
    answer[:4, :4] = 2  # painted already
    now = situation({"a": truth}, {"a": predicted(answer)})
    places = [Place("a", Box(60, 10, 10, 20)), Place("a", Box(80, 60, 10, 10)), Place("a")]
    edges = 4 * 96
    assert count_hits(places, now) == [100, 300, 100, 96 * 96 - edges - 16, 1, 2]


def test_parts_cover_an_image_evenly_and_are_the_same_every_time() -> None:
    truth = np.arange(100 * 60, dtype=np.uint32).reshape(100, 60).astype(np.uint8)
    image = MappedImage("a", truth[..., None], truth)
    parts = draw_parts([image], 40, 99)
    assert sorted(part.name for part in parts) == [f"a@{t},{left}" for t in (0, 33, 66) for left in (0, 30)]
    assert sum(part.label_map.size for part in parts) == truth.size
    assert [part.name for part in draw_parts([image], 40, 3)] == [
        part.name for part in draw_parts([image], 40, 3)
    ]


def test_figures_are_paired_over_seeds() -> None:
    runs: Runs = {("s", 0, "dense"): {"dice": [0.8]}, ("s", 1, "dense"): {"dice": [0.8]}}
    for seed in (0, 1):
        base = 0.2 * seed
        hits = [20, 100, 40, 1000, 1, 10]
        runs["s", seed, "random"] = {
            "dice": [base, base + 0.2],
            "swaths": [8, 16],
            "seconds": [6, 12],
            "hits": None,
        }
        runs["s", seed, "ours"] = {
            "dice": [base, base + 0.4],
            "swaths": [8, 16],
            "seconds": [6, 22],
            "hits": hits,
        }
    assert str(difference(runs, "s", "ours", "random")) == "+0.100 [+0.100, +0.100]"
    assert hit_ratio(runs, "s", "ours") == 5
    assert all(goal.met for goal in find_goals(runs, ["s"], ["random", "ours"]))
    (random, ours) = to_rows(runs, ["s"], ["random", "ours"])
    assert random[6] == ours[6] == "-"  # not every seed came to 90 % of dense
    assert ours[10:] == ("5.00", "0.10")


def test_a_reviewed_box_is_true_as_corrected_and_costs_a_look_and_its_errors() -> None:
    truth = halves()
    truth[0, :] = IGNORE_INDEX
    box = Box(0, 24, 96, 48)
    _, looking = review(truth, predicted(halves()), box, SCHEMA)
    assert (looking.strokes, looking.questions) == (0, 1)
    answer = halves()
    answer[30:50, 30:46] = 2
    left, effort = review(truth, predicted(answer), box, SCHEMA)
    known = left != IGNORE_INDEX
    assert effort.strokes >= 2, "one class is erased, another one painted"
    assert (left[known] == truth[known]).mean() > 0.97
    assert known[1:, 24:72].mean() > 0.9
    assert not known[:, :24].any()
    assert not known[0].any(), "what nobody knows stays so"


def test_painting_everything_leaves_the_truth_and_costs_more_than_a_swath() -> None:
    truth = halves(2)
    left, effort = paint_everything(truth, SCHEMA)
    known = left != IGNORE_INDEX
    assert known.mean() > 0.9
    assert (left[known] == truth[known]).all()
    _, swath = paint_swath(truth, Place("a"), False, np.random.default_rng(0))
    assert Pace().seconds(effort) > Pace().seconds(swath) > 0


def test_reviews_are_compared_by_the_seconds_to_the_same_dice() -> None:
    runs: Runs = {}
    for seed, last in ((0, 0.8), (1, 0.6)):
        runs["s", seed, "everything"] = {"dice": [0.5, 0.7], "seconds": [6, 106]}
        runs["s", seed, "reviewed"] = {"dice": [0.5, last], "seconds": [6, 66], "hits": [1, 1, 1, 1, 0, 1]}
    assert review_shares(runs, "s") == [pytest.approx(0.4), None]


def test_sets_of_label_maps_are_measured_and_what_is_no_arm_is_refused(tmp_path: Path) -> None:
    arguments = "--sets drawn_net --arms own,ours --seeds 1 --rounds 1 --swaths 2 --steps 3 --looks 2"
    small = "--side 96 --pool 4 --judged 2"
    result = run(Options(None, tmp_path / "out.json", (*arguments.split(), *small.split())))
    assert [row[:2] for row in result.rows] == [("drawn_net", "own"), ("drawn_net", "ours")]
    with pytest.raises(Exception, match="no arm is called hope"):
        run(Options(arguments=("--arms", "hope")))
