"""The bench of other kinds of images: how its sets are read and painted, scored, shown and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch

from bench import Options, domains
from bench.domain_ablation import ARMS, WHOLE, ablation_figures
from bench.domain_report import domain_goals, summarise_domains
from bench.domain_scores import Guess, score_guesses
from bench.domain_sets import DomainSet, MappedImage, load_domains
from bench.drawn_domains import DRAWN
from bench.swaths import LENGTH_PX, RADIUS_PX, draw_swath, paint_swaths
from core.schema import IGNORE_INDEX, LabelSchema


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("peers", "domains", "domain_learners"):
        monkeypatch.setattr(f"bench.{name}.N_THREADS", 1)
    monkeypatch.setattr("bench.peers.N_TREES", 5)
    torch.set_num_threads(1)


def write_set(folder: Path, n_pool: int = 4, n_test: int = 1) -> None:
    """Two classes, dark and bright halves of small images."""
    rng = np.random.default_rng(0)
    label_map = np.repeat(np.array([[0, 1]], np.uint8), 64, axis=1).repeat(96, axis=0)
    for part, n_images in (("pool", n_pool), ("test", n_test)):
        (folder / part).mkdir(parents=True)
        for i in range(n_images):
            image = (60 + 100 * label_map + rng.normal(0, 9, label_map.shape)).astype(np.uint8)
            np.savez(folder / part / f"{part}{i}.npz", image=image[..., None], label_map=label_map)
    (folder / "classes.txt").write_text("Dark\nBright")


def images_of(*label_maps: Any) -> list[MappedImage]:
    maps = [np.asarray(one, np.uint8) for one in label_maps]
    return [MappedImage(f"i{i}", np.zeros((*one.shape, 1), np.uint8), one) for i, one in enumerate(maps)]


def test_sets_are_read_from_folders_with_their_classes_in_order(tmp_path: Path) -> None:
    write_set(tmp_path / "halves")
    (found,) = load_domains(tmp_path)
    assert (found.name, found.schema.names) == ("halves", ("Dark", "Bright"))
    assert [one.name for one in found.pool] == ["pool0", "pool1", "pool2", "pool3"]
    assert found.test[0].image.shape == (96, 128, 1)


def test_choices_are_judged_by_a_part_of_the_pool_that_nobody_paints_in(tmp_path: Path) -> None:
    write_set(tmp_path / "halves")
    (found,) = load_domains(tmp_path, split="pool")
    assert [one.name for one in found.pool] == ["pool0", "pool1", "pool2"]
    assert [one.name for one in found.test] == ["pool3"]


def test_a_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_set(tmp_path / "halves")
    with pytest.raises(FileNotFoundError, match="thirds"):
        load_domains(tmp_path, ("thirds",))


@pytest.mark.parametrize("name", DRAWN)
def test_drawn_sets_hold_every_class_in_their_pool(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.domain_sets.DRAWN_POOL", 3)
    monkeypatch.setattr("bench.domain_sets.DRAWN_TEST", 1)
    (found,) = load_domains(None, (name,))
    there = np.unique(np.concatenate([np.unique(one.label_map) for one in found.pool]))
    assert there.tolist() == list(range(len(found.schema)))
    assert {one.image.dtype for one in found.pool} == {np.dtype(np.uint8)}


def test_a_swath_is_as_long_and_wide_as_a_brush_path() -> None:
    truth = np.zeros((600, 600), np.uint8)
    sizes = [draw_swath(truth, np.random.default_rng(seed)).sum() for seed in range(20)]
    longest = LENGTH_PX * (2 * RADIUS_PX + 1) + np.pi * (RADIUS_PX + 1) ** 2
    assert 0.5 * longest < np.median(sizes) < 1.15 * longest


def test_swaths_begin_in_each_class_alike_however_rare_it_is() -> None:
    truth = np.zeros((200, 200), np.uint8)
    truth[:10, :10] = 1
    hits = [draw_swath(truth, np.random.default_rng(seed))[:10, :10].any() for seed in range(60)]
    assert 20 < sum(hits) < 50


def test_what_nobody_knows_is_never_painted() -> None:
    truth = np.full((90, 90), IGNORE_INDEX, np.uint8)
    truth[40:50] = 1
    (painted,) = paint_swaths(images_of(truth), 3, np.random.default_rng(0))
    known = painted.label_map != IGNORE_INDEX
    assert known.any()
    assert (painted.label_map[known] == 1).all()
    assert not known[:40].any()


def test_a_small_budget_paints_the_first_swaths_of_a_large_one() -> None:
    images = images_of(*[np.zeros((80, 80)) for _ in range(3)])
    few = paint_swaths(images, 2, np.random.default_rng(7))
    many = {p.name: p for p in paint_swaths(images, 7, np.random.default_rng(7))}
    assert sum(p.n_objects for p in many.values()) == 7
    for p in few:
        known = p.label_map != IGNORE_INDEX
        assert (many[p.name].label_map[known] == p.label_map[known]).all()


def test_a_class_that_nobody_answers_counts_as_zero_and_one_without_truth_not_at_all() -> None:
    test = images_of([[0, 0, 1, 255]])
    guess = Guess(np.zeros((1, 4), np.uint8), np.full((1, 4), 0.9), np.array([[0.1, 0.1, 0.8, 0.0]]))
    scores = score_guesses([guess], test, LabelSchema.of("A", "B", "C"))
    assert scores["class_dice"] == {"A": pytest.approx(0.8), "B": 0.0}
    assert scores["dice"] == pytest.approx(0.4)
    assert scores["auroc"] == 1.0


def test_pixels_of_all_images_count_together() -> None:
    test = images_of([[0, 0, 0, 1]], [[1, 1, 1, 1]])
    guesses = [
        Guess(np.zeros((1, 4), np.uint8), np.ones((1, 4)), np.zeros((1, 4))),
        Guess(np.ones((1, 4), np.uint8), np.ones((1, 4)), np.zeros((1, 4))),
    ]
    scores = score_guesses(guesses, test, LabelSchema.of("A", "B"))
    assert scores["class_dice"]["B"] == pytest.approx(8 / 9)


def measured(name: str, swaths: int, part: str, dice: float, seed: int = 0) -> dict[str, Any]:
    figures = {"ece": 0.01, "auroc": 0.9, "train_s": 1.0, "predict_s_per_megapixel": 0.5}
    about = {"set": name, "swaths": swaths, "part": part, "seed": seed}
    return {**about, "dice": dice, "class_dice": {"A": dice}, **figures}


def missed(*measurements: dict[str, Any]) -> list[str]:
    return [goal.text for goal in domain_goals(summarise_domains(measurements)) if not goal.met]


def test_a_round_must_be_clearly_above_the_forest() -> None:
    forest = measured("x", 10, "forest", 0.5)
    assert missed(forest, measured("x", 10, "round", 0.54)) == []
    assert len(missed(forest, measured("x", 10, "round", 0.52))) == 1


def test_beside_a_nearly_perfect_forest_as_good_is_enough() -> None:
    forest = measured("x", 10, "forest", 0.96)
    assert missed(forest, measured("x", 10, "round", 0.957)) == []
    assert len(missed(forest, measured("x", 10, "round", 0.95))) == 1


def test_more_paint_must_help_after_consolidation() -> None:
    few = measured("x", 10, "consolidated", 0.6)
    assert missed(few, measured("x", 40, "consolidated", 0.7)) == []
    assert len(missed(few, measured("x", 40, "consolidated", 0.6))) == 1


def test_differences_to_the_forest_are_paired_by_seed() -> None:
    pairs = [(0.5, 0.6), (0.7, 0.8)]
    both = [
        measured("x", 10, part, pair[i], seed)
        for seed, pair in enumerate(pairs)
        for i, part in enumerate(("forest", "round"))
    ]
    (cell,) = summarise_domains(both)
    assert str(cell["parts"]["round"]["gap"]) == "0.100 ± 0.000"


def test_what_is_left_out_is_compared_with_the_whole_round_of_the_same_seed() -> None:
    whole, without = (0.7, 0.5), (0.6, 0.5)
    of_arms = [
        measured("x", 10, part, dice, seed)
        for part, values in ((WHOLE, whole), ("without head", without))
        for seed, dice in enumerate(values)
    ]
    alone = measured("x", 10, "without head", 0.9, seed=2)
    ((row,),) = (figures.rows for figures in ablation_figures([*of_arms, alone]))
    assert row[:4] == ("x", 10, "without head", "-0.050 ± 0.635")
    assert row[-1] == 2
    assert ablation_figures([measured("x", 10, WHOLE, 0.7)]) == ()


@pytest.mark.parametrize("name", ["network", "head", "forest"])
def test_a_round_without_a_learner_gives_it_no_weight(name: str, tmp_path: Path) -> None:
    write_set(tmp_path / "halves")
    settings = domains.DomainSettings(1, (6,), (f"without {name}",), max_steps=1)
    (found,) = domains.DomainBench(settings, tuple(load_domains(tmp_path)), "x").measure_all()
    assert not found["weights"].get(name)
    assert sum(found["weights"].values()) == pytest.approx(1, abs=0.01)


def test_every_part_is_measured_shown_and_resumed(tmp_path: Path) -> None:
    write_set(tmp_path / "data" / "halves")
    json_path = tmp_path / "out.json"
    arguments = ("--parts", ",".join(domains.PARTS), "--budgets", "6", "--seeds", "1",
                 "--steps", "1", "--idle", "11")  # fmt: skip
    found = domains.run(Options(tmp_path / "data", json_path, arguments))
    json.dumps(found.record, allow_nan=False)
    assert found.rows[0][:2] == ("halves", 6)
    assert {one["part"] for one in found.record["measurements"]} == {*domains.PARTS}
    for figures in found.further:
        assert {len(row) for row in figures.rows} == {len(figures.columns)}
    assert [row[2] for row in found.further[-1].rows] == [*ARMS]
    n_measured = len(json_path.with_suffix(".jsonl").read_text().splitlines())
    again = domains.run(Options(tmp_path / "data", json_path, (*arguments, "--resume")))
    assert again.rows == found.rows
    assert len(json_path.with_suffix(".jsonl").read_text().splitlines()) == n_measured == len(domains.PARTS)


def test_unknown_parts_are_refused() -> None:
    with pytest.raises(click.BadParameter, match="dense"):
        domains.run(Options(arguments=("--parts", "nothing")))


def test_a_learner_that_saw_the_strokes_tells_halves_apart(tmp_path: Path) -> None:
    write_set(tmp_path / "halves")
    (domain,) = load_domains(tmp_path)
    assert isinstance(domain, DomainSet)
    bench = domains.DomainBench(domains.DomainSettings(1, (6,), ("forest",)), (domain,), "x")
    assert bench.measure_all()[0]["dice"] > 0.95
