"""The learner's benchmark: every part at the smallest size, and how it is told what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch

from bench import Figures, Goal, Options, learner
from bench.annotator import SCHEMA, LabelledImage, paint
from bench.fresh_process import run_fresh
from bench.journal import Journal
from bench.learner_ablation import ARMS, WHOLE, measure_ablation
from bench.learner_cost import measure_cost
from bench.learner_forgetting import measure_forgetting
from bench.learner_incremental import measure_incremental
from bench.learner_memory import measure_memory
from bench.learner_quality import measure_quality
from bench.learner_repeat import measure_repeat
from bench.learner_settings import Bench, LearnerSettings, PartResult
from bench.reliability import save_picture
from bench.two_kinds import draw_two_kinds, swap_kinds
from core.synthetic import Kind, make_image
from core.training.recipe import Recipe

TINY = LearnerSettings(seeds=2, budgets=(5,), max_steps=1)


@pytest.fixture(autouse=True)
def smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, few trees, few steps, one pass: the figures mean nothing here, their order does."""
    monkeypatch.setattr("bench.peers.N_TREES", 5)
    monkeypatch.setattr("bench.peers.TIMED_PASSES", 1)
    monkeypatch.setattr("core.training.folds.FOLD_STEPS", 5)
    monkeypatch.setattr("core.training.folds.FOLD_TREES", 3)
    for name in ("peers", "learner_settings", "growing_project", "stored_project", "learner_memory"):
        monkeypatch.setattr(f"bench.{name}.N_THREADS", 1)
    torch.set_num_threads(1)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in this process what the benchmark runs in new ones."""

    def run(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
        return {**work(*arguments), "peak_bytes": 2**20}

    for name in ("learner_cost", "learner_memory", "learner_repeat"):
        monkeypatch.setattr(f"bench.{name}.run_fresh", run)


def make_bench(settings: LearnerSettings = TINY, journal: Journal | None = None) -> Bench:
    rng = np.random.default_rng(0)

    def draw(kind: Kind, n: int) -> list[LabelledImage]:
        return [LabelledImage(f"{kind}{i}", *make_image(kind, rng, (112, 112))) for i in range(n)]

    kinds: tuple[Kind, ...] = ("fluorescence", "tissue")
    sets = {kind: {"pool": draw(kind, 3), "test": draw(kind, 1)} for kind in kinds}
    return Bench(settings, sets, "generated", journal or Journal(None))


def check(part: PartResult) -> None:
    """Everything can be shown and written."""
    json.dumps(part.record, allow_nan=False)
    for figures in part.figures:
        assert figures.rows
        assert {len(row) for row in figures.rows} == {len(figures.columns)}


def test_quality_compares_both_learners_on_every_set_and_seed(tmp_path: Path) -> None:
    journal = tmp_path / "run.jsonl"
    part = measure_quality(make_bench(journal=Journal(journal)))
    check(part)
    measurements = part.record["measurements"]
    assert len(measurements) == 2 * (2 * 2 + 1)
    cell = part.record["summary"][0]
    assert cell["dice"]["gap"]["n"] == 2
    assert cell["dice"]["gap"]["mean"] == pytest.approx(
        cell["dice"]["network"]["mean"] - cell["dice"]["forest"]["mean"]
    )
    assert any("Dice above the forest" in goal.text for goal in part.goals)
    n_measured = len(journal.read_text().splitlines())
    assert measure_quality(make_bench(journal=Journal(journal, resume=True))).record == part.record
    assert len(journal.read_text().splitlines()) == n_measured == len(measurements)


def test_other_settings_are_other_measurements(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    bench = make_bench(journal=Journal(path))
    bench.measure_ours({"part": "p"}, 0, lambda: {"steps": 1})
    more = make_bench(LearnerSettings(max_steps=2), Journal(path, resume=True))
    assert more.measure_ours({"part": "p"}, 0, lambda: {"steps": 2}) == {"steps": 2}


def test_cost_compares_sizes_and_ages_of_projects(here: None) -> None:
    part = measure_cost(make_bench(), sizes=(6, 8), n_rounds=3, repeats=1)
    check(part)
    assert set(part.record["tasks"]["seconds"]) == {"6", "8"}
    assert set(part.record["rounds"]["seconds"]) == {"2", "3"}
    assert part.record["rounds"]["tasks"] == 10
    assert part.record["memory_ratio"] == 1
    assert len(part.goals) == 3


def test_forgetting_follows_a_project_through_a_new_look_and_a_new_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.learner_forgetting.N_TEST", 1)
    part = measure_forgetting(make_bench(), rounds_per_look=2, rounds_before_class=2)
    check(part)
    assert part.record["fall"]["n"] == 2
    assert set(part.record["class_falls"]) == set(SCHEMA.names)
    assert set(part.record["classes"][0]["after"]) == {"Background", "Nucleus", "Bar"}
    assert len(part.goals) == 4


def test_memory_measures_prediction_and_what_is_sent_at_each_side(here: None) -> None:
    part = measure_memory(make_bench(), sides_px=(96, 128))
    check(part)
    assert [(one["side_px"], one["mode"]) for one in part.record["sizes"]] == [
        (96, "augmented"),
        (96, "plain"),
        (128, "plain"),
    ]
    assert part.record["peak_gib"] > 0
    assert part.record["whole_peak_gib"] == 2**-10


def test_the_rounds_of_a_growing_project_see_all_strokes_of_the_single_round() -> None:
    part = measure_incremental(make_bench(), n_objects=9, n_rounds=2)
    check(part)
    assert len(part.record["measurements"]) == 2 * 2
    assert part.record["measurements"][0]["rounds"] == 2


@pytest.mark.slow(about_s=10)
def test_repeat_finds_the_same_weights_for_the_same_seed(here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.learner_repeat.N_IMAGES", 2)
    part = measure_repeat(make_bench())
    check(part)
    assert [goal.met for goal in part.goals] == [True, True]


@pytest.mark.parametrize("name", sorted(set(ARMS) - {WHOLE}))
def test_what_an_arm_switches_off_is_where_it_says(name: str) -> None:
    with ARMS[name].changed():
        assert ARMS[name].recipe(Recipe()) is not None


@pytest.mark.slow(about_s=15)
def test_every_ingredient_can_be_switched_off_and_changes_the_result() -> None:
    tissue = make_bench().sets["tissue"]
    one_image = {"tissue": {"pool": tissue["pool"][:1], "test": tissue["test"]}}
    part = measure_ablation(Bench(TINY, one_image, "generated"), budgets=(4,), n_seeds=1, arms=ARMS)
    check(part)
    assert {one["without"] for one in part.record["summary"]} == set(ARMS) - {WHOLE}


def test_a_fresh_process_answers_with_its_own_memory() -> None:
    found = run_fresh(dict, [("answer", 42)])
    assert found["answer"] == 42
    assert 2**20 < found["peak_bytes"] < 2**30


def test_a_fresh_process_that_dies_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="ended with code 1"):
        run_fresh(int, "no number")  # type: ignore[arg-type]


def test_two_kinds_never_touch_and_either_can_be_painted() -> None:
    images = draw_two_kinds(2, np.random.default_rng(0), side_px=160)
    assert all((i.instances < 0).any() and (i.instances > 0).any() for i in images)
    painted = paint(swap_kinds(images), 2, np.random.default_rng(0))
    for p, labelled in zip(sorted(painted, key=lambda p: p.name), images, strict=False):
        assert (labelled.instances[p.label_map == 1] < 0).all()


def test_the_reliability_diagram_is_a_picture(tmp_path: Path) -> None:
    scores = {"reliability": [[0.6, 0.5], [0.9, 1.0]], "ece": 0.1}
    measurements = [
        {"set": s, "objects": 5, "learner": learner, "plain": scores, "augmented": scores}
        for s in ("one", "two")
        for learner in ("network", "forest")
    ]
    save_picture(measurements, tmp_path / "deep" / "reliability.png")
    assert (tmp_path / "deep" / "reliability.png").read_bytes().startswith(b"\x89PNG")


def test_parts_are_run_in_the_order_they_are_named_and_put_into_one_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[LearnerSettings] = []

    def part(name: str) -> Callable[[Bench], PartResult]:
        def run(bench: Bench) -> PartResult:
            seen.append(bench.settings)
            return PartResult((Figures(name, ("x",), ((1,),)),), (Goal(name, True),), {"is": name})

        return run

    monkeypatch.setattr(learner, "PARTS", {name: part(name) for name in ("quality", "cost")})
    monkeypatch.setattr(learner, "load_sets", lambda data: {})
    arguments = ("--parts", "cost,quality", "--seeds", "3", "--budgets", "5,200", "--round", "9")
    result = learner.run(Options(json_path=tmp_path / "run.json", arguments=arguments))
    assert (result.title, [figures.title for figures in result.further]) == ("cost", ["quality"])
    assert [goal.text for goal in result.goals] == ["cost", "quality"]
    assert result.record["quality"] == {"is": "quality"}
    assert seen[0] == LearnerSettings(seeds=3, budgets=(5, 200), round_s=9.0)
    json.dumps(result.record)


def test_ablation_runs_only_when_it_is_named() -> None:
    assert "ablation" in learner.PARTS
    assert "ablation" not in learner.USUAL_PARTS


@pytest.mark.parametrize("arguments", [("--parts", "beauty"), ("--seeds", "0"), ("--resume",)])
def test_wrong_options_are_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError):
        learner.run(Options(arguments=arguments))
