"""A round with several learners: a draft of the quick ones, and how the hold-out weighs them all."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from core.errors import CheckpointError, RoundCancelledError
from core.learners.forest import Forest
from core.network.checkpoint import FORMAT, RECORD_FILE, Checkpoint, load_checkpoint, save_checkpoint
from core.network.mixture import FOREST, HEAD, NETWORK, QUICK
from core.network.outputs import Weights
from core.network.predict import Predictor
from core.rounds import Example, ExampleSummary, RoundSettings
from core.schema import IGNORE_INDEX, LabelSchema
from core.training.candidate import TREES_BY_WEIGHT
from core.training.evaluation import ask_learners, open_held_out
from core.training.recipe import Recipe
from core.training.round_report import RoundResult
from core.training.trainer import train_round

SCHEMA = LabelSchema.of("Plain", "Striped")
SIDE = 96
DRAFT = RoundSettings(max_steps=8, n_threads=1, learners=QUICK)
ALL = replace(DRAFT, learners=(NETWORK, *QUICK))
TINY = Recipe(widths=(6, 8), patch_px=32, batch_size=4, peak_rate=1e-2, head_steps=60)


def _picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy plane, whose right part is striped."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((SIDE, SIDE), np.uint8)
    truth[:, int(rng.integers(40, 56)) :] = 1
    stripes = 60 * (np.arange(SIDE)[:, None] // 3 % 2) * truth
    image = np.clip(rng.normal(90, 12, truth.shape) + stripes, 0, 255)
    return image[..., None].astype(np.uint8), truth


class Pictures:
    """Four pictures as an `ExampleSource`: two strips are painted, another is held out when asked."""

    def __init__(self, *, held_out: bool = False) -> None:
        self.examples: dict[str, Example] = {}
        for seed in range(4):
            image, truth = _picture(seed)
            train, held = np.full_like(truth, IGNORE_INDEX), np.full_like(truth, IGNORE_INDEX)
            for strip in (slice(4, 8), slice(36, 40)):
                train[strip] = truth[strip]
            if held_out:
                held[72:84] = truth[72:84]
            self.examples[str(seed)] = Example(str(seed), image, train, held)

    def summaries(self) -> list[ExampleSummary]:
        def pixels(label_map: np.ndarray) -> tuple[int, int]:
            return int((label_map == 0).sum()), int((label_map == 1).sum())

        return [
            ExampleSummary(
                key, (SIDE, SIDE), pixels(e.train_map), pixels(e.held_out_map), (4, 4), (2, 2), is_new=False
            )
            for key, e in self.examples.items()
        ]

    def open(self, key: str) -> Example:
        return self.examples[key]


def _train(source: Pictures, settings: RoundSettings = DRAFT, start: Checkpoint | None = None) -> RoundResult:
    ticks = count(0, 0.001)
    return train_round(source, SCHEMA, start, settings, now=lambda: next(ticks), recipe=TINY)


def _accuracy(checkpoint: Checkpoint) -> float:
    image, truth = _picture(99)
    return float((Predictor(checkpoint, 1).predict(image).label_map == truth).mean())


@pytest.fixture(scope="module")
def draft() -> RoundResult:
    return _train(Pictures())


@pytest.fixture(scope="module")
def checked() -> RoundResult:
    return _train(Pictures(held_out=True), ALL)


def test_a_draft_of_the_quick_learners_answers_for_an_image_that_nobody_painted(draft: RoundResult) -> None:
    assert draft.checkpoint.is_draft
    assert draft.report.changed["steps"] == 0
    assert _accuracy(draft.checkpoint) > 0.9


def test_without_a_hold_out_half_of_the_images_weigh_the_learners(draft: RoundResult) -> None:
    weights = draft.report.changed["weights"]
    assert weights[NETWORK] == 0
    assert sum(weights.values()) == pytest.approx(1, abs=0.01)
    assert weights != {NETWORK: 0, HEAD: 0.5, FOREST: 0.5}


def test_the_same_seed_gives_the_same_learners(draft: RoundResult) -> None:
    assert _train(Pictures()).checkpoint.fingerprint == draft.checkpoint.fingerprint
    assert _train(Pictures(), replace(DRAFT, seed=1)).checkpoint.fingerprint != draft.checkpoint.fingerprint


def test_a_network_that_was_not_trained_starts_over_in_the_next_round(draft: RoundResult) -> None:
    assert draft.checkpoint.taught == ()
    result = _train(Pictures(), ALL, draft.checkpoint)
    assert result.report.origin == "fresh"
    assert result.checkpoint.taught == SCHEMA.names
    assert result.checkpoint.network_weight > 0


def test_a_model_is_read_back_with_all_its_learners(checked: RoundResult, tmp_path: Path) -> None:
    checkpoint = checked.checkpoint
    loaded = load_checkpoint(save_checkpoint(checkpoint, tmp_path / "model"))
    assert loaded.fingerprint == checkpoint.fingerprint
    assert loaded.shares == checkpoint.shares
    assert set(loaded.judged) == set(checkpoint.judged) != set()
    assert loaded.mixture_temperature == checkpoint.mixture_temperature
    image, _ = _picture(50)
    one, other = (Predictor(model, 1).predict(image, n_augmentations=1) for model in (checkpoint, loaded))
    assert (one.confidence == other.confidence).all()


def test_learners_of_another_number_of_classes_are_refused(draft: RoundResult, tmp_path: Path) -> None:
    learners = {name: dict(own) for name, own in draft.checkpoint.learners.items()}
    for own in learners.values():
        if "out_bias" in own:
            own |= {"out_bias": torch.zeros(3), "out_kernel": torch.zeros(3, own["out_kernel"].shape[1])}
        else:
            own["shares"] = torch.nn.functional.pad(own["shares"], (0, 1))
    save_checkpoint(replace(draft.checkpoint, learners=learners), tmp_path / "model")
    with pytest.raises(CheckpointError, match="classes"):
        load_checkpoint(tmp_path / "model")


def test_records_from_before_there_were_learners_are_read(draft: RoundResult, tmp_path: Path) -> None:
    plain = replace(draft.checkpoint, learners={}, shares={})
    path = save_checkpoint(plain, tmp_path / "model") / RECORD_FILE
    record = path.read_text().replace(f'"format": {FORMAT}', '"format": 2')
    path.write_text(record.replace('"shares": {}', '"extra": {}').replace('"mixture_temperature": 1.0,', ""))
    assert load_checkpoint(tmp_path / "model").network_weight == 1


def test_the_hold_out_weighs_all_learners_and_what_counts_nothing_is_not_kept(checked: RoundResult) -> None:
    weights = checked.report.changed["weights"]
    assert sum(weights.values()) == pytest.approx(1, abs=0.01)
    assert set(checked.checkpoint.learners) == {name for name in QUICK if weights.get(name)}
    assert checked.report.held_out["Striped"]["dice"] > 0.9


def test_held_out_truth_changes_no_learner_that_it_judges_and_teaches_those_that_answer() -> None:
    images, disturbed = Pictures(held_out=True), Pictures(held_out=True)
    for key, example in disturbed.examples.items():
        known = example.held_out_map != IGNORE_INDEX
        wrong = np.where(known, 1 - np.minimum(example.held_out_map, 1), IGNORE_INDEX).astype(np.uint8)
        disturbed.examples[key] = replace(example, held_out_map=wrong)
    one, other = (_train(source).checkpoint for source in (images, disturbed))
    both = set(one.judged) & set(other.judged)
    assert both
    for name in both:
        assert _are_equal(*(_first_trees(name, model.judged[name]) for model in (one, other)))
        assert not _are_equal(*(_first_trees(name, model.learners[name]) for model in (one, other)))


def _first_trees(name: str, learner: Weights) -> Weights:
    """Of a forest the trees that are kept in any case: how many stay depends on what it counts."""
    fewest = TREES_BY_WEIGHT[0][1]
    return Forest.from_tensors(learner).first_trees(fewest).to_tensors() if name == FOREST else learner


def _are_equal(one: Weights, other: Weights) -> bool:
    return all(one[part].shape == other[part].shape and torch.equal(one[part], other[part]) for part in one)


def test_what_judges_a_model_asks_the_copies_that_never_saw_the_hold_out(checked: RoundResult) -> None:
    model = checked.checkpoint
    assert set(model.judged) == set(model.learners)
    assert model.as_judged.learners == model.judged
    source = Pictures(held_out=True)
    blocks, _ = open_held_out(source, source.summaries(), np.random.default_rng(0))
    asked, of_copies = (ask_learners(one, blocks, SCHEMA) for one in (model, model.as_judged))
    assert all((asked[name] == of_copies[name]).all() for name in asked)


def test_a_draft_has_no_copies_because_nothing_judges_it(draft: RoundResult) -> None:
    assert draft.checkpoint.judged == {}
    assert draft.checkpoint.as_judged is draft.checkpoint


def test_learners_that_disagree_are_unsure(checked: RoundResult, draft: RoundResult) -> None:
    image, truth = _picture(99)
    for model in (checked.checkpoint, draft.checkpoint):
        found = Predictor(model, 1).predict(image, n_augmentations=1)
        apart = found.mutual_information.astype(float)
        assert (apart >= 0).all()
        assert (apart <= found.predictive_entropy.astype(float) + 1e-3).all()
    if len(draft.checkpoint.learners) > 1:
        edge = np.abs(np.diff(truth.astype(int), axis=1)).argmax(1)[0]
        assert apart[:, edge - 3 : edge + 4].mean() > apart.mean()


def test_an_answer_does_not_depend_on_its_tiles(draft: RoundResult) -> None:
    image, _ = _picture(7)
    whole = Predictor(draft.checkpoint, 1).predict(image)
    tiles = Predictor(draft.checkpoint, 1, tile_px=32).predict(image)
    apart = np.abs(whole.confidence.astype(float) - tiles.confidence.astype(float))
    assert np.quantile(apart, 0.99) < 0.01


def test_an_image_that_is_given_up_half_way_is_not_kept(draft: RoundResult) -> None:
    image, _ = _picture(7)
    predictor = Predictor(draft.checkpoint, 1, tile_px=32)
    tiles = predictor.iter_tiles(image)
    next(tiles)
    tiles.close()
    assert not predictor._maps._seen._kept


def test_tiles_one_by_one_say_what_the_whole_image_gets(checked: RoundResult) -> None:
    image, _ = _picture(7)
    predictor = Predictor(checked.checkpoint, 1, tile_px=32)
    whole = predictor.predict(image)
    for (rows, columns), said in predictor.iter_tiles(image):
        assert (said.label_map == whole.label_map[rows, columns]).all()
        assert (said.confidence == whole.confidence[rows, columns]).all()


def test_a_draft_stops_when_asked_to() -> None:
    with pytest.raises(RoundCancelledError):
        train_round(Pictures(), SCHEMA, None, DRAFT, now=lambda: 0.0, should_stop=lambda: True, recipe=TINY)


def test_a_draft_keeps_the_maps_of_its_images_in_the_store_that_it_is_given() -> None:
    class Store:
        def __init__(self) -> None:
            self.saved: dict[str, object] = {}
            self.n_loaded = 0

        def load(self, name: str) -> object:
            self.n_loaded += name in self.saved
            return self.saved.get(name)

        def save(self, name: str, maps: object) -> None:
            self.saved[name] = maps

    store = Store()
    for _ in range(2):
        train_round(
            Pictures(),
            SCHEMA,
            None,
            replace(DRAFT, learners=(HEAD,)),
            now=lambda: 0.0,
            recipe=TINY,
            store=store,
        )
    assert len(store.saved) == 8, "four images, each as it is and at another one's exposure"
    assert store.n_loaded >= 8
