"""What the learner's benchmark is built of: intervals, the journal, scores, features and peers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.annotator import BACKGROUND, OBJECT, SCHEMA, LabelledImage, paint, to_label_map
from bench.intervals import interval_of, paired_difference
from bench.journal import Journal
from bench.painted_source import PaintedSource
from bench.peers import AUGMENTED, PLAIN, dense_source, measure, train_forest, train_network
from bench.pixel_features import SCALES_PX, pixel_features
from bench.scores import Answer, auroc, edge_band, score_answers
from core.rounds import RoundSettings
from core.schema import IGNORE_INDEX
from core.synthetic import make_image


def draw(n: int, seed: int = 0) -> list[LabelledImage]:
    rng = np.random.default_rng(seed)
    return [LabelledImage(f"i{k}", *make_image("fluorescence", rng, (96, 96))) for k in range(n)]


def answer_of(instances: np.ndarray, confidence: float = 1.0) -> Answer:
    sure = np.full(instances.shape, confidence)
    return Answer((instances > 0).astype(np.uint8), instances, sure, {"margin": 1 - sure})


def test_a_single_value_has_no_interval_and_nan_is_no_value() -> None:
    assert str(interval_of([0.5])) == "0.500"
    assert interval_of([0.5, float("nan")]).n == 1
    assert str(interval_of([])) == "nan"


def test_a_paired_difference_forgets_what_the_seeds_have_in_common() -> None:
    ours, theirs = [0.9, 0.5, 0.7], [0.8, 0.4, 0.6]
    assert paired_difference(ours, theirs).half == pytest.approx(0, abs=1e-9)
    assert interval_of(ours).half > 0.1  # type: ignore[operator]


def test_a_resumed_journal_measures_only_what_is_missing(tmp_path: Path) -> None:
    path, made = tmp_path / "run.jsonl", []

    def work(value: int):
        made.append(value)
        return {"value": value, "pair": (1, 2)}

    first = Journal(path)
    assert first.measure({"seed": 0}, lambda: work(7)) == {"value": 7, "pair": [1, 2]}
    with path.open("a") as file:
        file.write('{"key": {"seed": 1}, "val')  # killed while it wrote
    again = Journal(path, resume=True)
    assert again.measure({"seed": 0}, lambda: work(8)) == {"value": 7, "pair": [1, 2]}
    assert again.measure({"seed": 1}, lambda: work(9))["value"] == 9
    assert made == [7, 9]


def test_a_journal_that_was_cut_off_in_a_line_is_read_again_later(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text('{"key": {"seed": 1}, "val')
    Journal(path, resume=True).measure({"seed": 2}, lambda: {"value": 2})
    assert Journal(path, resume=True).measure({"seed": 2}, lambda: {"value": 3}) == {"value": 2}


def test_a_journal_that_is_not_resumed_starts_over(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    Journal(path).measure({"seed": 0}, lambda: {"value": 1})
    assert Journal(path).measure({"seed": 0}, lambda: {"value": 2}) == {"value": 2}


def test_features_of_a_plain_image_are_its_value_and_zeros() -> None:
    found = pixel_features(np.full((24, 24, 1), 50, np.uint8))
    gaussians = np.zeros(found.shape[2], bool)
    gaussians[0] = True
    gaussians[1::8] = True  # the first of the eight features of each larger scale
    assert gaussians.sum() == len(SCALES_PX)
    assert np.allclose(found[..., gaussians], 50, atol=1e-3)
    assert np.allclose(found[..., ~gaussians], 0, atol=1e-2)


def test_features_of_a_parabola_are_its_derivatives() -> None:
    rows, columns = np.mgrid[-40:41, -40:41]
    found = pixel_features((rows**2 + 3.0 * columns**2)[..., None])[40, 45]
    laplacian, gradient = found[1 + 8 * 2 + 1], found[1 + 8 * 2 + 2]
    hessian = found[1 + 8 * 2 + 6 : 1 + 8 * 2 + 8]
    assert laplacian == pytest.approx(8, rel=0.02)
    assert gradient == pytest.approx(30, rel=0.02)
    assert hessian == pytest.approx([6, 2], rel=0.02)


def test_the_perfect_answer_scores_one_and_its_calibration_is_its_doubt() -> None:
    test = draw(2)
    scores = score_answers([answer_of(t.instances, 0.9) for t in test], test)
    assert (scores["dice"], scores["boundary_f1"], scores["ap50"]) == (1, 1, 1)
    assert scores["ece"] == pytest.approx(0.1)
    assert scores["auroc"] == {
        "margin": {"all": None, "without_answer_band": None, "without_truth_band": None}
    }


def test_the_edge_band_hides_errors_on_outlines_only() -> None:
    truth = np.zeros((40, 40), np.int32)
    truth[10:30, 10:30] = 1
    shifted = np.roll(truth, 1, axis=1)
    shifted[2:4, 2:4] = 2  # an object that is not there
    answer = answer_of(shifted)
    wrong = (shifted > 0) != (truth > 0)
    answer.doubts["margin"][wrong] = 1  # type: ignore[index]
    scores = score_answers([answer], [LabelledImage("i", np.zeros((40, 40, 1)), truth)])
    assert scores["auroc"]["margin"]["all"] == 1
    assert scores["auroc"]["margin"]["without_truth_band"] == 1
    assert wrong[~edge_band(truth > 0)].sum() == 4
    assert wrong[~edge_band(shifted > 0)].sum() == 0
    assert scores["auroc"]["margin"]["without_answer_band"] is None


def test_equal_doubts_tell_nothing_of_errors() -> None:
    assert auroc(np.zeros(4), np.array([True, False, False, True])) == 0.5


def test_things_of_another_class_are_left_unpainted() -> None:
    image, instances = make_image("fluorescence", np.random.default_rng(1), (128, 128))
    instances[instances == 1] = -1
    n_objects = int((np.unique(instances) > 0).sum())
    painted = paint([LabelledImage("i", image, instances)], n_objects, np.random.default_rng(0))
    assert (painted[0].label_map[instances == -1] == IGNORE_INDEX).all()
    dense, n_dense = to_label_map(instances)
    assert n_dense == n_objects
    assert set(np.unique(dense)) == {BACKGROUND, OBJECT, IGNORE_INDEX}


def test_dense_truth_keeps_touching_objects_apart_and_holds_nothing_out() -> None:
    source = dense_source(draw(1))
    summary = source.summaries()[0]
    assert sum(summary.held_out_pixels) == 0
    assert sum(summary.class_pixels) == 96 * 96


def test_only_named_images_are_new_in_a_painted_source() -> None:
    painted = paint(draw(3), 9, np.random.default_rng(0))
    source = PaintedSource(painted, new=["i1"])
    assert {s.key for s in source.summaries() if s.is_new} == {"i1"}


def test_both_learners_are_measured_on_the_same_strokes() -> None:
    images = draw(4)
    painted = paint(images[:3], 5, np.random.default_rng(0))
    forest = measure(train_forest(painted, seed=0), images[3:])
    assert forest[PLAIN]["dice"] > 0.6
    assert forest[PLAIN]["predict_s_per_megapixel"] > 0
    settings = RoundSettings(max_steps=1, n_threads=1, learners=("network",))
    checkpoint, trained = train_network(PaintedSource(painted), settings)
    assert checkpoint.schema == SCHEMA
    network = measure(trained, images[3:])
    assert network["steps"] == 1
    assert network["fingerprint"] == checkpoint.fingerprint
    assert set(network[AUGMENTED]["auroc"]) == {"predictive_entropy", "mutual_information", "margin"}
    assert network[PLAIN].keys() == network[AUGMENTED].keys() == forest[PLAIN].keys()
