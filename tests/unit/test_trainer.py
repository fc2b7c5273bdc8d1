"""A round learns from annotated pixels, keeps the better model, and says what it did."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import ImageError, NonFiniteLossError, NotEnoughTruthError, RoundCancelledError
from core.learners.forest import Forest
from core.network.checkpoint import Checkpoint
from core.network.mixture import FOREST, HEAD, NETWORK, Share
from core.network.predict import Predictor
from core.rounds import Example, ExampleSummary, RoundSettings
from core.schema import IGNORE_INDEX, LabelSchema
from core.synthetic import make_image
from core.training import candidate, optimiser, trainer
from core.training.clock import FEWEST_STEPS, FEWEST_STEPS_EVER
from core.training.evaluation import HeldOutScore, score_blocks
from core.training.recipe import Recipe
from core.training.round_report import RoundResult
from core.training.trainer import train_round

SCHEMA = LabelSchema.of("Background", "Cell")
TINY = Recipe(widths=(6, 8), patch_px=32, batch_size=4, peak_rate=1e-2, base_rate=1e-2, warm_rate=1e-3)
QUICK = RoundSettings(max_steps=25, n_threads=1, learners=("network",))
SIDE = 64


class Images:
    """Images in memory as an `ExampleSource`; keys in `broken` cannot be read."""

    def __init__(self, examples: Sequence[Example], n_classes: int = 2, new: Sequence[str] = ()) -> None:
        self.examples = {example.key: example for example in examples}
        self.n_classes, self.new = n_classes, set(new)
        self.broken: set[str] = set()
        self.opened: list[str] = []

    def summaries(self) -> list[ExampleSummary]:
        return [
            ExampleSummary(
                key=key,
                shape=(SIDE, SIDE),
                class_pixels=self._pixels(example.train_map),
                held_out_pixels=self._pixels(example.held_out_map),
                class_objects=(0, *[1] * (self.n_classes - 1)),
                held_out_objects=(0, *[2] * (self.n_classes - 1)),
                is_new=key in self.new,
            )
            for key, example in self.examples.items()
        ]

    def open(self, key: str) -> Example:
        self.opened.append(key)
        if key in self.broken:
            raise ImageError(f"{key} is no image")
        return self.examples[key]

    def _pixels(self, label_map: np.ndarray) -> tuple[int, ...]:
        return tuple(int((label_map == index).sum()) for index in range(self.n_classes))


def _example(seed: int, *, held_out: bool = False, kind: Any = "fluorescence", classes: int = 2) -> Example:
    """The left half is annotated for training, the right quarter is held out when asked."""
    image, instances = make_image(kind, np.random.default_rng(seed), (SIDE, SIDE), 6)
    truth = np.where(instances > 0, 1 + instances % (classes - 1), 0).astype(np.uint8)
    train, held = np.full_like(truth, IGNORE_INDEX), np.full_like(truth, IGNORE_INDEX)
    train[:, : SIDE // 2] = truth[:, : SIDE // 2]
    if held_out:
        held[:, SIDE * 3 // 4 :] = truth[:, SIDE * 3 // 4 :]
    return Example(f"{kind}-{seed}", image, train, held)


def _draft_images() -> Images:
    return Images([_example(seed) for seed in range(3)])


def _checked_images() -> Images:
    return Images([_example(seed, held_out=True) for seed in range(6)])


def _train(
    source: Images,
    start: Checkpoint | None = None,
    schema: LabelSchema = SCHEMA,
    settings: RoundSettings = QUICK,
    recipe: Recipe = TINY,
    should_stop: Callable[[], bool] = lambda: False,
    should_finish: Callable[[], bool] = lambda: False,
) -> Any:
    return train_round(
        source,
        schema,
        start,
        settings,
        now=_Ticks(),
        should_stop=should_stop,
        should_finish=should_finish,
        recipe=recipe,
    )


class _Ticks:
    """A clock that moves a hundredth of a second with every look at it."""

    def __init__(self) -> None:
        self.time_s = 0.0

    def __call__(self) -> float:
        self.time_s += 0.01
        return self.time_s


def _same(one: Checkpoint, other: Checkpoint) -> bool:
    return all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def _accuracy(checkpoint: Checkpoint, example: Example, truth: np.ndarray) -> float:
    answer = Predictor(checkpoint, n_threads=1).predict(example.image, n_augmentations=1).label_map
    known = truth != IGNORE_INDEX
    return float((answer == truth)[known].mean())


def test_a_round_learns_to_tell_cells_from_background() -> None:
    result = _train(_draft_images(), settings=replace(QUICK, max_steps=60))
    image, instances = make_image("fluorescence", np.random.default_rng(99), (SIDE, SIDE), 6)
    truth = (instances > 0).astype(np.uint8)
    assert _accuracy(result.checkpoint, Example("x", image, truth, truth), truth) > 0.9
    assert result.report.loss_curve[-1] < result.report.loss_curve[0] / 2


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, second = _train(_draft_images()), _train(_draft_images())
    other = _train(_draft_images(), settings=replace(QUICK, seed=1))
    assert first.checkpoint.fingerprint == second.checkpoint.fingerprint
    assert other.checkpoint.fingerprint != first.checkpoint.fingerprint


def test_held_out_truth_changes_no_weight() -> None:
    images, disturbed = _checked_images(), _checked_images()
    for key, example in disturbed.examples.items():
        known = example.held_out_map != IGNORE_INDEX
        wrong = np.where(known, 1 - np.minimum(example.held_out_map, 1), IGNORE_INDEX).astype(np.uint8)
        disturbed.examples[key] = replace(example, held_out_map=wrong)
    assert _same(_train(images).checkpoint, _train(disturbed).checkpoint)


def test_without_a_sufficient_hold_out_the_model_is_a_draft() -> None:
    result = _train(_draft_images())
    assert result.checkpoint.is_draft
    assert result.report.draft
    assert result.promoted
    assert result.report.held_out == {}


def test_with_a_hold_out_the_report_has_scores_with_intervals_per_class() -> None:
    result = _train(_checked_images())
    assert not result.checkpoint.is_draft
    assert set(result.report.held_out) == {"Background", "Cell"}
    score = result.report.held_out["Cell"]
    assert score["interval"][0] <= score["dice"] <= score["interval"][1]
    assert score["iou"] < score["dice"]


def test_the_first_round_with_a_hold_out_starts_fresh_and_not_from_the_draft() -> None:
    draft = _train(_draft_images()).checkpoint
    result = _train(_checked_images(), draft)
    assert result.report.origin == "fresh"
    assert result.promoted
    assert _same(result.checkpoint, _train(_checked_images()).checkpoint)


def test_a_later_round_goes_on_from_the_current_model_and_names_it_as_parent() -> None:
    first = _train(_checked_images()).checkpoint
    result = _train(_checked_images(), first)
    assert result.report.origin == "warm"
    assert result.checkpoint.parent == result.report.parent == first.fingerprint


def test_a_model_that_is_worse_than_the_current_one_is_not_promoted() -> None:
    good = _train(_checked_images(), settings=replace(QUICK, max_steps=80)).checkpoint
    ruin = replace(TINY, warm_rate=0.3, largest_gradient=1e6)
    source = _checked_images()
    for key, example in source.examples.items():  # truth turned inside out for training only
        known = example.train_map != IGNORE_INDEX
        train_map = np.where(known, 1 - np.minimum(example.train_map, 1), IGNORE_INDEX).astype(np.uint8)
        source.examples[key] = replace(example, train_map=train_map)
    result = _train(source, good, recipe=ruin)
    assert not result.promoted
    assert "worse" in result.report.reason
    assert result.report.previous_held_out["Cell"]["dice"] > result.report.held_out["Cell"]["dice"]


def test_a_draft_does_not_replace_a_checked_model() -> None:
    checked = _train(_checked_images()).checkpoint
    result = _train(_draft_images(), checked)
    assert result.checkpoint.is_draft
    assert not result.promoted


def test_a_class_added_later_is_learnt_without_forgetting_the_old_ones() -> None:
    old_images = _draft_images()
    first = _train(old_images, settings=replace(QUICK, max_steps=80)).checkpoint
    # In a new image there are striped cells, and they become a class of their own.
    grown = Images([*old_images.examples.values()], n_classes=3)
    image, instances = make_image("fluorescence", np.random.default_rng(50), (SIDE, SIDE), 6)
    striped = instances > 3
    stripes = np.where(np.arange(SIDE) % 4 < 2, 255, 0)[:, None]
    image = np.where(striped, stripes, image[..., 0])[..., None].astype(np.uint8)
    truth = np.where(striped, 2, np.where(instances > 0, 1, 0)).astype(np.uint8)
    nothing = np.full_like(truth, IGNORE_INDEX)
    grown.examples["new"] = Example("new", image, truth, nothing)
    grown.new = {"new"}
    schema = LabelSchema.of("Background", "Cell", "Striped")
    second = _train(grown, first, schema=schema, settings=replace(QUICK, max_steps=250)).checkpoint
    example = old_images.examples["fluorescence-0"]
    before, after = (_accuracy(model, example, example.train_map) for model in (first, second))
    assert second.schema.names == schema.names
    assert after > before - 0.03
    answer = Predictor(second, n_threads=1).predict(image).label_map
    assert (answer[striped] == 2).mean() > 0.5


def test_images_that_cannot_be_read_are_skipped_and_named() -> None:
    source = _checked_images()
    source.broken = {"fluorescence-1"}
    result = _train(source)
    assert "no image" in result.report.skipped_images["fluorescence-1"]


def test_when_no_image_can_be_read_the_round_says_so() -> None:
    source = _draft_images()
    source.broken = set(source.examples)
    with pytest.raises(NotEnoughTruthError, match="could be read"):
        _train(source)


def test_one_annotated_class_is_not_enough_truth() -> None:
    nothing = np.full((SIDE, SIDE), IGNORE_INDEX, np.uint8)
    source = Images([Example("a", np.zeros((SIDE, SIDE, 1), np.uint8), nothing * 0, nothing)])
    with pytest.raises(NotEnoughTruthError, match="Background"):
        _train(source)
    with pytest.raises(NotEnoughTruthError, match="none"):
        _train(Images([]))


def test_a_class_without_pixels_is_reported_and_stops_nothing() -> None:
    source = Images([_example(seed) for seed in range(2)], n_classes=3)
    result = _train(source, schema=LabelSchema.of("Background", "Cell", "Ghost"))
    assert result.report.classes_without_pixels == ("Ghost",)


def test_a_round_stops_when_asked_to() -> None:
    looks = iter([False, False, True])
    with pytest.raises(RoundCancelledError, match="2 steps"):
        _train(_draft_images(), should_stop=lambda: next(looks))


def test_the_wall_budget_ends_a_round_and_a_later_round_has_a_smaller_one() -> None:
    settings = RoundSettings(budget_s=3, warm_budget_s=1.5, n_threads=1, learners=("network",))
    first = _train(_draft_images(), settings=settings)
    second = _train(_draft_images(), first.checkpoint, settings=settings)
    assert FEWEST_STEPS < second.report.changed["steps"] < first.report.changed["steps"]
    assert first.report.seconds < 3.2


def test_a_class_that_is_painted_for_the_first_time_has_the_budget_of_a_first_round() -> None:
    schema = LabelSchema.of("Background", "Cell", "Late")  # there from the beginning, painted later
    settings = RoundSettings(budget_s=300, warm_budget_s=120, n_threads=1, learners=("network",))

    def learn(images: Images, start: Checkpoint | None) -> RoundResult:
        clock = itertools.count()  # a second passes with each look at it
        return train_round(images, schema, start, settings, now=lambda: float(next(clock)), recipe=TINY)

    plain = Images([*_draft_images().examples.values()], n_classes=3)
    first = learn(plain, None)
    later = learn(plain, first.checkpoint)
    example = next(iter(plain.examples.values()))
    late = example.train_map.copy()
    late[:6] = 2
    grown = Images([replace(example, train_map=late)], n_classes=3)
    taught = learn(grown, later.checkpoint)
    again = learn(grown, taught.checkpoint)
    steps = [result.report.changed["steps"] for result in (first, later, taught, again)]
    assert steps[0] == steps[2] > 2 * steps[1] == 2 * steps[3]
    assert later.checkpoint.taught == ("Background", "Cell")
    assert taught.checkpoint.taught == schema.names


def test_progress_rises_to_one_with_the_seconds_that_are_left() -> None:
    heard: list[tuple[float, float]] = []
    train_round(
        _draft_images(),
        SCHEMA,
        None,
        QUICK,
        now=_Ticks(),
        on_progress=lambda done, eta_s: heard.append((done, eta_s)),
        recipe=TINY,
    )
    shares = [done for done, _ in heard]
    assert shares == sorted(shares)
    assert heard[-1] == (1.0, 0.0)
    assert all(eta_s >= 0 for _, eta_s in heard)


def test_one_bad_step_is_undone_and_the_round_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([0.5, float("nan")])
    real = optimiser._step

    def sometimes(*arguments: Any) -> float:
        loss = real(*arguments)
        return next(losses, loss)

    monkeypatch.setattr(optimiser, "_step", sometimes)
    result = _train(_draft_images())
    assert all(torch.isfinite(tensor).all() for tensor in result.checkpoint.weights.values())


@pytest.mark.filterwarnings("ignore:invalid value")  # numpy's, about what the test hands in
def test_a_loss_that_is_never_finite_ends_the_round_with_its_name() -> None:
    source = _draft_images()
    for key, example in source.examples.items():
        source.examples[key] = replace(example, image=np.full((SIDE, SIDE, 1), np.inf, np.float32))
    with pytest.raises(NonFiniteLossError, match="nan"):
        _train(source)


def test_the_report_is_plain_json() -> None:
    record = _train(_checked_images()).report.to_record()
    assert json.loads(json.dumps(record)) == record
    assert {"seen", "changed", "held_out", "loss_curve", "promoted", "reason"} <= set(record)


def test_a_round_opens_a_bounded_number_of_images() -> None:
    example = _example(0)
    source = Images([replace(example, key=f"image-{i}") for i in range(300)])
    _train(source, settings=replace(QUICK, max_steps=2))
    assert len(source.opened) <= 64


def test_grey_and_colour_images_train_one_model() -> None:
    source = Images([_example(0), _example(1, kind="tissue")])
    result = _train(source)
    assert result.checkpoint.architecture["in_channels"] == 3
    grey_start = _train(Images([_example(0)])).checkpoint
    assert _train(source, grey_start).checkpoint.architecture["in_channels"] == 3


def _told_by_the_last_channel(seed: int, n_channels: int) -> Example:
    """Noise in all channels but the last one, which alone shows the class: left and right in turns."""
    rng = np.random.default_rng(seed)
    image = rng.integers(80, 120, (SIDE, SIDE, n_channels), np.uint8)
    truth = np.zeros((SIDE, SIDE), np.uint8)
    truth[:, :: 2 * 16] = 1
    truth = np.maximum.reduce([np.roll(truth, shift, axis=1) for shift in range(16)])
    image[..., -1] += truth * np.uint8(60)
    return Example(f"{n_channels}-{seed}", image, truth, np.full_like(truth, IGNORE_INDEX))


@pytest.mark.parametrize("n_channels", [2, 4, 5])
def test_no_channel_of_an_image_is_lost(n_channels: int) -> None:
    source = Images([_told_by_the_last_channel(seed, n_channels) for seed in range(3)])
    checkpoint = _train(source, settings=replace(QUICK, max_steps=40)).checkpoint
    assert checkpoint.architecture["in_channels"] == n_channels
    unseen = _told_by_the_last_channel(9, n_channels)
    assert _accuracy(checkpoint, unseen, unseen.train_map) > 0.9


def test_a_model_of_colours_learns_a_fourth_channel_and_keeps_what_it_knew_of_three() -> None:
    start = _train(Images([_example(seed, kind="tissue") for seed in range(3)])).checkpoint
    wider = _train(Images([_told_by_the_last_channel(seed, 4) for seed in range(3)]), start).checkpoint
    assert wider.architecture["in_channels"] == 4
    assert wider.statistics.mean[:3] == start.statistics.mean
    assert wider.statistics.mean[3] == pytest.approx(130, abs=5)


def test_a_round_on_a_busy_machine_takes_longer_to_make_the_fewest_steps() -> None:
    settings = RoundSettings(budget_s=0.6, warm_budget_s=0.6, n_threads=1, learners=("network",))
    changed = _train(_draft_images(), settings=settings).report.changed
    assert changed["steps"] == changed["fewest_steps"] == FEWEST_STEPS


def test_on_a_machine_too_slow_for_that_it_ends_all_the_same_and_says_what_it_made() -> None:
    settings = RoundSettings(budget_s=0.001, warm_budget_s=0.001, n_threads=1, learners=("network",))
    changed = _train(_draft_images(), settings=settings).report.changed
    assert changed["steps"] == FEWEST_STEPS_EVER < changed["fewest_steps"]


def test_a_round_that_shall_finish_is_checked_with_the_steps_it_has_made() -> None:
    looks = iter([False, False])
    result = _train(_checked_images(), should_finish=lambda: next(looks, True))
    assert result.report.changed["steps"] == 3
    assert result.report.held_out


def test_a_forest_that_loses_trees_is_scored_with_those_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    little = {NETWORK: Share(0.5), HEAD: Share(0.3), FOREST: Share(0.2)}
    monkeypatch.setattr(candidate, "find_shares", lambda *_: (little, 1.0))
    settled: list[tuple[Checkpoint, HeldOutScore]] = []
    judges: list[candidate.Judges] = []

    def settle(*args: Any, **kwargs: Any) -> tuple[Checkpoint, HeldOutScore]:
        judges.append(args[2])
        settled.append(candidate.settle(*args, **kwargs))
        return settled[0]

    monkeypatch.setattr(trainer, "settle", settle)
    learners = (NETWORK, HEAD, FOREST)
    _train(_checked_images(), settings=replace(QUICK, max_steps=3, learners=learners))
    checkpoint, score = settled[0]
    assert len(Forest.from_tensors(checkpoint.judged[FOREST]).roots) == 8
    again = score_blocks(checkpoint, judges[0].blocks, SCHEMA)
    np.testing.assert_allclose(again.logits, score.logits, atol=1e-4)
