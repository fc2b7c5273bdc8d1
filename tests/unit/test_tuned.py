"""An encoder that learns too starts as the shipped one, never sees the hold-out, and is kept while it knows
all that is painted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from core.errors import CheckpointError, RoundCancelledError
from core.learners.forest_growth import train_forest
from core.network.checkpoint import (
    FORMAT,
    RECORD_FILE,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from core.network.encoder import N_FEATURES, load_encoder
from core.network.feature_maps import FeatureMaps
from core.network.head import HIDDEN, Head, hypercolumns
from core.network.mixture import HEAD, NETWORK, QUICK, TUNED, Share
from core.network.pixels import PixelStatistics
from core.network.predict import Predictor
from core.network.quick import QuickLearners, check_learners
from core.network.tuned import Tuned
from core.rounds import Example, ExampleSummary, RoundSettings
from core.schema import IGNORE_INDEX, LabelSchema
from core.training import trainer, tuning
from core.training.augmentation import Augmentation
from core.training.clock import FEWEST_STEPS, Clock
from core.training.evaluation import open_held_out, score_blocks
from core.training.quick_learners import QuickRound
from core.training.recipe import Recipe
from core.training.round_report import RoundResult
from core.training.sampling import open_positions
from core.training.trainer import train_round
from core.training.tuning import Tuning, find_tuned, go_on_tuning, network_part, tune

SCHEMA = LabelSchema.of("Plain", "Striped")
GREY = PixelStatistics((100.0,), (40.0,))
SIDE = 64
EVERYTHING = (slice(0, SIDE), slice(0, SIDE))
CONTINUED = RoundSettings(max_steps=3, n_threads=1, learners=(NETWORK, *QUICK, TUNED))
ROUND = replace(CONTINUED, learners=(NETWORK, *QUICK))
TINY = Recipe(widths=(6, 8), patch_px=32, batch_size=2, head_steps=20)


@pytest.fixture(autouse=True)
def small_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "PATCH_PX", 64)


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy plane, whose right part is striped."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((SIDE, SIDE), np.uint8)
    truth[:, int(rng.integers(24, 40)) :] = 1
    stripes = 60 * (np.arange(SIDE)[:, None] // 3 % 2) * truth
    return np.clip(rng.normal(90, 12, truth.shape) + stripes, 0, 255)[..., None].astype(np.uint8), truth


class Pictures:
    """Four pictures as an `ExampleSource`: two strips are painted and another one is held out."""

    def __init__(self, n_classes: int = 2) -> None:
        self.n_classes = n_classes
        self.examples: dict[str, Example] = {}
        for seed in range(4):
            image, truth = draw(seed)
            if n_classes > 2:
                truth[:, :10] = 2
            train, held = np.full_like(truth, IGNORE_INDEX), np.full_like(truth, IGNORE_INDEX)
            train[:12], train[20:30], held[44:56] = truth[:12], truth[20:30], truth[44:56]
            self.examples[str(seed)] = Example(str(seed), image, train, held)

    def summaries(self) -> list[ExampleSummary]:
        def count_classes(label_map: np.ndarray) -> tuple[int, ...]:
            return tuple(int((label_map == index).sum()) for index in range(self.n_classes))

        objects = (4,) * self.n_classes, (2,) * self.n_classes
        return [
            ExampleSummary(
                key,
                (SIDE, SIDE),
                count_classes(e.train_map),
                count_classes(e.held_out_map),
                *objects,
                is_new=False,
            )
            for key, e in self.examples.items()
        ]

    def open(self, key: str) -> Example:
        return self.examples[key]


def train(
    source: Pictures,
    settings: RoundSettings = CONTINUED,
    start: Checkpoint | None = None,
    schema: LabelSchema = SCHEMA,
) -> RoundResult:
    ticks = count(0, 0.001)
    return train_round(source, schema, start, settings, now=lambda: next(ticks), recipe=TINY)


def undecided(n_classes: int = 2) -> Tuned:
    rng = np.random.default_rng(0)
    kernel = torch.from_numpy(rng.normal(0, 0.05, (HIDDEN, N_FEATURES))).float()
    head = Head(kernel, torch.zeros(HIDDEN), torch.zeros(n_classes, HIDDEN), torch.zeros(n_classes))
    return Tuned(load_encoder().state_dict(), head)


def prepare(
    n_steps: int, should_stop: Callable[[], bool] = lambda: False, seeds: tuple[int, ...] = (0, 1, 2)
) -> Tuning:
    rng = np.random.default_rng(0)
    images = [(str(seed), *draw(seed)) for seed in seeds]
    examples = [
        open_positions(Example(key, image, truth, np.full_like(truth, IGNORE_INDEX)), True, rng)
        for key, image, truth in images
    ]
    cpu = torch.device("cpu")
    return Tuning(
        examples, GREY, (6000, 6000), lambda done: done / max(n_steps, 1), should_stop, cpu, Augmentation()
    )


def answer(tuned: Tuned, image: np.ndarray) -> np.ndarray:
    quick = QuickLearners({TUNED: tuned.to_tensors()}, FeatureMaps(GREY), 1)
    return np.asarray(quick.logits(TUNED, image, EVERYTHING))


def test_it_learns_a_texture_within_some_steps() -> None:
    image, truth = draw(9)
    shipped = {name: tensor.clone() for name, tensor in load_encoder().state_dict().items()}
    tuned, n_steps = tune(undecided(), prepare(25), np.random.default_rng(0))
    assert n_steps == 25
    assert (answer(tuned, image).argmax(0) == truth).mean() > 0.9
    assert all(not torch.equal(tuned.encoder[name], shipped[name]) for name in shipped)
    # The whole process shares the shipped one.
    assert all(torch.equal(tensor, shipped[name]) for name, tensor in load_encoder().state_dict().items())


def test_a_step_whose_loss_is_no_number_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before, usual = taught(), tuning._loss_of
    monkeypatch.setattr(tuning, "_loss_of", lambda *given: usual(*given) * float("nan"))
    image, _ = draw(9)
    tuned, n_steps = tune(before, prepare(3), np.random.default_rng(0))
    assert n_steps == 3
    assert np.ptp(answer(before, image)) > 1
    np.testing.assert_allclose(answer(tuned, image), answer(before, image), atol=2e-2)


def test_one_that_knows_its_images_forgets_nothing_in_a_few_steps() -> None:
    image, truth = draw(9)
    tuned, _ = tune(taught(), prepare(3), np.random.default_rng(1))
    assert (answer(tuned, image).argmax(0) == truth).mean() > 0.9


def test_a_single_painted_pixel_of_a_class_is_enough_to_go_on() -> None:
    work = prepare(4)
    sparse = []
    for opened in work.examples:
        truth = np.full((SIDE, SIDE), IGNORE_INDEX, np.uint8)
        truth[5, 5], truth[60, 60] = 0, 1
        sparse.append(
            open_positions(replace(opened.example, train_map=truth), True, np.random.default_rng(0))
        )
    tuned, n_steps = tune(taught(), replace(work, examples=sparse), np.random.default_rng(0))
    assert n_steps == 4
    assert all(torch.isfinite(tensor).all() for tensor in tuned.to_tensors().values())
    assert np.isfinite(answer(tuned, draw(9)[0])).all()


def test_without_time_for_a_step_it_stays_what_it_was() -> None:
    done = replace(prepare(1), progress=lambda steps: 1.0)
    before = undecided()
    assert go_on_tuning(before, None, done, np.random.default_rng(0)) == (before, 0)
    head = before.head.to_tensors()
    assert go_on_tuning(None, head, done, np.random.default_rng(0)) == (None, 0)
    assert go_on_tuning(None, None, prepare(1), np.random.default_rng(0)) == (None, 0)


def test_it_stops_before_a_step() -> None:
    asked = iter([False, True])
    with pytest.raises(RoundCancelledError, match="after 1 steps of the encoder"):
        tune(undecided(), prepare(5, lambda: next(asked)), np.random.default_rng(0))


def test_the_same_seed_gives_the_same_weights_and_leaves_torchs_own_generator_alone() -> None:
    state = torch.random.get_rng_state()
    one, other = (tune(undecided(), prepare(2), np.random.default_rng(4))[0].to_tensors() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_rows_of_a_patch_are_the_hypercolumns_that_a_head_reads() -> None:
    maps = load_encoder()(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    at = np.array([[0, 0], [63, 63], [17, 40], [5, 62]])
    expected = hypercolumns([found[0] for found in maps], at[:, 0], at[:, 1]).float()
    np.testing.assert_allclose(tuning._rows_at(maps, torch.from_numpy(at)), expected, rtol=2e-3, atol=2e-3)


def test_tensors_of_something_else_are_refused() -> None:
    tensors = undecided().to_tensors()
    check_learners({TUNED: tensors}, 2)
    without_a_layer = {name: t for name, t in tensors.items() if name != "encoder.stem.weight"}
    with pytest.raises((ValueError, KeyError, RuntimeError)):
        check_learners({TUNED: without_a_layer}, 2)
    with pytest.raises(ValueError, match="2 classes, not 3"):
        check_learners({TUNED: tensors}, 3)


@pytest.fixture(scope="module")
def continued() -> RoundResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "PATCH_PX", 64)
        first = train(Pictures(), ROUND)
        return train(Pictures(), start=first.checkpoint)


@lru_cache(maxsize=1)
def taught() -> Tuned:
    return tune(undecided(), prepare(25), np.random.default_rng(0))[0]


def heavy(checkpoint: Checkpoint, weight: float = 0.5) -> Checkpoint:
    """The same model with one that was taught well, which three steps do not."""
    learners = {**checkpoint.learners, TUNED: taught().to_tensors()}
    others = {name: Share(share.weight * (1 - weight)) for name, share in checkpoint.shares.items()}
    return replace(checkpoint, learners=learners, shares={**others, TUNED: Share(weight)})


def test_a_continuation_tunes_and_a_round_does_not(continued: RoundResult) -> None:
    assert continued.report.changed["encoder_steps"] == 3
    first = train(Pictures(), ROUND)
    assert first.report.changed["encoder_steps"] == 0
    assert TUNED not in first.report.changed["weights"]


def test_progress_rises_through_network_and_encoder(continued: RoundResult) -> None:
    heard: list[float] = []
    ticks = count(0, 0.001)
    train_round(
        Pictures(),
        SCHEMA,
        continued.checkpoint,
        CONTINUED,
        now=lambda: next(ticks),
        on_progress=lambda done, eta_s: heard.append(done),
        recipe=TINY,
    )
    assert heard == sorted(heard)
    assert heard[-1] == 1
    assert len(heard) == 1 + 2 * 3  # three steps each, and the end


def test_a_continuation_opens_more_images_and_grows_its_forest_from_more_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[int, int]] = []
    opened, quick = trainer.open_examples, trainer.train_copies
    limits: list[int] = []

    def open_some(
        source: Pictures, summaries: list[ExampleSummary], rng: np.random.Generator, limit: int
    ) -> object:
        limits.append(limit)
        return opened(source, summaries, rng, limit)

    def learn(names: set[str], work: QuickRound, *given: object) -> object:
        seen.append((limits[-1], work.forest_pixels))
        return quick(names, work, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer, "open_examples", open_some)
    monkeypatch.setattr(trainer, "train_copies", learn)
    for settings in (ROUND, CONTINUED):
        train(Pictures(), settings)
    assert seen == [(64, 60_000), (128, 120_000)]


def test_trees_are_grown_from_as_many_pixels_at_once_as_is_said() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4000, 5)).astype(np.float32)
    labels = (rows[:, 0] + rng.normal(0, 0.5, 4000) > 0).astype(np.uint8)
    few, many = (train_forest(rows, labels, 2, 0, n_trees=4, pixels_at_once=n) for n in (1000, 4000))
    assert len(many.child) > 2 * len(few.child)


def test_the_hold_out_decides_what_it_counts(continued: RoundResult) -> None:
    weights = continued.report.changed["weights"]
    assert sum(weights.values()) == pytest.approx(1, abs=0.01)
    assert continued.checkpoint.shares[TUNED].weight == pytest.approx(weights[TUNED], abs=1e-3)
    assert TUNED not in continued.checkpoint.judged


def test_the_next_round_keeps_it_as_it_is(continued: RoundResult) -> None:
    start = heavy(continued.checkpoint)
    result = train(Pictures(), ROUND, start)
    assert result.report.changed["weights"][TUNED] > 0.1
    kept, before = (model.learners[TUNED] for model in (result.checkpoint, start))
    assert all(torch.equal(kept[name], before[name]) for name in before)


def test_a_round_with_a_class_that_it_was_never_taught_lets_it_go(continued: RoundResult) -> None:
    three = LabelSchema.of("Plain", "Striped", "Edge")
    result = train(Pictures(3), ROUND, heavy(continued.checkpoint), three)
    assert TUNED not in result.report.changed["weights"]


def test_without_a_hold_out_the_encoder_does_not_learn() -> None:
    source = Pictures()
    for key, example in source.examples.items():
        source.examples[key] = replace(example, held_out_map=np.full((SIDE, SIDE), IGNORE_INDEX, np.uint8))
    result = train(source)
    assert result.report.draft
    assert result.report.changed["encoder_steps"] == 0
    assert TUNED not in result.report.changed["weights"]


def test_a_draft_of_the_quick_learners_has_none(continued: RoundResult) -> None:
    result = train(Pictures(), replace(ROUND, learners=QUICK), heavy(continued.checkpoint))
    assert TUNED not in result.report.changed["weights"]


def test_classes_that_moved_keep_what_was_learnt_of_them(continued: RoundResult) -> None:
    start = heavy(continued.checkpoint)
    outputs = torch.arange(2.0)
    known = Tuned.from_tensors(start.learners[TUNED])
    start = replace(
        start,
        learners={
            **start.learners,
            TUNED: replace(known, head=replace(known.head, out_bias=outputs)).to_tensors(),
        },
    )
    moved = find_tuned(start, LabelSchema.of("New", "Striped", "Plain"), 1)
    assert moved is not None
    assert moved.head.out_bias.tolist() == [-1.0, 1.0, 0.0]
    assert find_tuned(start, SCHEMA, 3) is None
    assert find_tuned(None, SCHEMA, 1) is None


def test_held_out_truth_changes_no_weight_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Tuned | None] = []
    usual = tuning.go_on_tuning

    def remember(*given: object) -> tuple[Tuned | None, int]:
        made.append((result := usual(*given))[0])  # type: ignore[arg-type]
        return result

    monkeypatch.setattr("core.training.trainer.go_on_tuning", remember)
    disturbed = Pictures()
    for key, example in disturbed.examples.items():
        known = example.held_out_map != IGNORE_INDEX
        wrong = np.where(known, 1 - np.minimum(example.held_out_map, 1), IGNORE_INDEX).astype(np.uint8)
        disturbed.examples[key] = replace(example, held_out_map=wrong)
    train(Pictures())
    train(disturbed)
    one, other = (tuned.to_tensors() for tuned in made if tuned is not None)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_counts_nothing_yet_is_kept_to_learn_on_and_is_not_asked(
    continued: RoundResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = heavy(continued.checkpoint, 0.0)
    monkeypatch.setattr(tuning, "tune", lambda start, work, rng: (undecided(), 1))
    result = train(Pictures(), start=model)
    assert result.report.changed["weights"][TUNED] == 0
    assert TUNED in result.checkpoint.learners
    monkeypatch.setattr(Tuned, "build_encoder", lambda tuned: pytest.fail("it was asked"))
    Predictor(result.checkpoint, 1).predict(draw(9)[0])
    blocks, _ = open_held_out(Pictures(), Pictures().summaries(), np.random.default_rng(0))
    score = score_blocks(result.checkpoint, blocks, SCHEMA)
    assert len(score.labels) == len(score.logits) > 0


@pytest.mark.parametrize(
    ("network", "tuned", "part"), [(1.0, None, 0.77), (0.0, None, 0.2), (0.6, 0.3, 0.67), (0.1, 0.9, 0.2)]
)
def test_time_is_divided_by_what_network_and_encoder_count(
    continued: RoundResult, network: float, tuned: float | None, part: float
) -> None:
    shares = {HEAD: Share(1 - network - (tuned or 0.0))}
    learners = {HEAD: {}}
    if tuned is not None:
        shares[TUNED], learners[TUNED] = Share(tuned), {}
    model = replace(continued.checkpoint, shares=shares, learners=learners, judged={})
    assert network_part(model) == pytest.approx(part, abs=0.01)
    assert network_part(None) == 0.5


def test_a_late_network_goes_along_its_whole_rate() -> None:
    moments = iter([20.0, *[40.0] * 200])
    pace = Clock(lambda: next(moments), 0.0, 20.0, None, (NETWORK, *QUICK)).network_pace()
    assert [pace(steps) for steps in (0, 10, 25)] == [0.0, 0.2, 0.5]
    assert pace(FEWEST_STEPS) > 1


def test_network_and_encoder_share_what_the_quick_learners_leave() -> None:
    moments = iter([10.0, 22.0, 22.0, 22.0, 28.0])
    clock = Clock(lambda: next(moments), 0.0, 40.0, None, CONTINUED.learners)
    assert clock.network_pace(0.5)(FEWEST_STEPS) == pytest.approx(1.0)
    pace = clock.tuning_pace()
    assert [pace(1), pace(2)] == pytest.approx([0.0, 0.5])


def test_a_model_with_it_is_read_back(continued: RoundResult, tmp_path: Path) -> None:
    model = heavy(continued.checkpoint)
    loaded = load_checkpoint(save_checkpoint(model, tmp_path / "model"))
    assert loaded.fingerprint == model.fingerprint
    image, _ = draw(9)
    answers = [Predictor(one, 1).predict(image).confidence for one in (model, loaded)]
    np.testing.assert_array_equal(*answers)
    judged = loaded.as_judged.learners
    assert set(judged) == set(loaded.learners)
    assert torch.equal(judged[TUNED]["encoder.stem.weight"], loaded.learners[TUNED]["encoder.stem.weight"])


def test_older_records_are_read_and_newer_ones_named(continued: RoundResult, tmp_path: Path) -> None:
    folder = save_checkpoint(
        replace(continued.checkpoint, learners={}, judged={}, shares={}), tmp_path / "model"
    )
    record = (folder / RECORD_FILE).read_text(encoding="utf-8")
    for found in (2, 3, 4):
        (folder / RECORD_FILE).write_text(record.replace(f'"format": {FORMAT}', f'"format": {found}'))
        assert load_checkpoint(folder).learners == {}
    (folder / RECORD_FILE).write_text(record.replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}'))
    with pytest.raises(CheckpointError, match="a newer Brushloop writes"):
        load_checkpoint(folder)


def test_a_compiled_graph_says_what_torch_says(continued: RoundResult) -> None:
    pytest.importorskip("openvino")
    model = replace(heavy(continued.checkpoint, 1.0), mixture_temperature=1.0)
    image, _ = draw(9)
    quick = QuickLearners(model.learners, FeatureMaps(model.statistics), 1)
    with_torch = np.asarray(quick.logits(TUNED, image, EVERYTHING))
    quick.forget(image)
    quick.compile_encoders()
    np.testing.assert_allclose(np.asarray(quick.logits(TUNED, image, EVERYTHING)), with_torch, atol=2e-3)
