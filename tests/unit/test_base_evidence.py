"""What base weights say of painted pixels before a round has taught them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.network.base_weights import base_for
from core.network.batch import to_batch
from core.network.inference import infer_logits
from core.network.unet import build_architecture, build_network, stride_of
from core.rounds import Example
from core.schema import IGNORE_INDEX, LabelSchema
from core.synthetic import make_image
from core.training import base_evidence
from core.training.base_evidence import ask_base
from core.training.beginning import Beginning, begin
from core.training.folds import HeldBack
from core.training.painted_pixels import draw_painted
from core.training.sampling import OpenExample, open_positions

SCHEMA = LabelSchema.of("Background", "Nucleus")


def _open(name: str, side: int) -> OpenExample:
    rng = np.random.default_rng(len(name))
    image, instances = make_image("fluorescence", rng, (side, side + 40), 12)
    truth = (instances > 0).astype(np.uint8)
    nothing = np.full_like(truth, IGNORE_INDEX)
    return open_positions(Example(name, image, truth, nothing), True, rng)


@pytest.fixture(scope="module")
def examples() -> list[OpenExample]:
    return [_open("a", 200), _open("bb", 150)]


@pytest.fixture(scope="module")
def beginning(examples: list[OpenExample]) -> Beginning:
    return begin(None, SCHEMA, examples, np.random.default_rng(0))


@pytest.fixture(scope="module")
def held_back(examples: list[OpenExample]) -> HeldBack:
    return HeldBack({}, draw_painted(examples, np.random.default_rng(1), 600))


def test_nuclei_are_found_by_weights_that_nobody_taught(
    beginning: Beginning, examples: list[OpenExample], held_back: HeldBack
) -> None:
    said = ask_base(beginning, examples, held_back, is_taught=True)
    assert said is not None
    assert said.shape == (600, 2)
    assert (said.argmax(1) == held_back.painted.labels).mean() > 0.85


def test_a_pixel_gets_what_the_whole_image_would_give_it(
    beginning: Beginning, examples: list[OpenExample], held_back: HeldBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_evidence, "CONTEXT_PX", 10_000)
    said = ask_base(beginning, examples, held_back, is_taught=True)
    network = build_network(beginning.architecture)
    network.load_state_dict(base_for(SCHEMA) if beginning.base is None else beginning.base)
    for index, opened in enumerate(examples):
        image = opened.example.image
        batch = to_batch(image, beginning.statistics, stride_of(beginning.architecture))
        whole = infer_logits(network.eval(), batch)[0, :-1].numpy()
        own = held_back.painted.image == index
        rows, columns = held_back.painted.at[own].T
        assert said is not None
        np.testing.assert_allclose(said[own], whole[:, rows, columns].T, atol=1e-4)


def test_of_many_parts_some_of_each_image_are_asked(
    beginning: Beginning, examples: list[OpenExample], held_back: HeldBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_evidence, "MOST_TILES", 2)
    said = ask_base(beginning, examples, held_back, is_taught=True)
    assert said is not None
    asked = np.isfinite(said).all(1)
    assert 0 < asked.sum() < len(held_back.painted)
    assert set(held_back.painted.image[asked]) == {0, 1}
    assert np.isnan(said[~asked]).all()


def test_without_base_weights_there_is_nothing_to_ask(
    beginning: Beginning, examples: list[OpenExample], held_back: HeldBack
) -> None:
    architecture = build_architecture(examples[0].example.image.shape[2], 2, (8, 16))
    fresh = Beginning("fresh", architecture, {}, beginning.statistics, None)
    assert ask_base(fresh, examples, held_back, is_taught=True) is None


def test_a_network_that_is_not_the_base_any_more_is_not_judged_by_it(
    beginning: Beginning, examples: list[OpenExample], held_back: HeldBack
) -> None:
    warm = replace(beginning, origin="warm")
    assert ask_base(warm, examples, held_back, is_taught=False) is None
    assert ask_base(warm, examples, held_back, is_taught=True) is not None
    assert ask_base(beginning, examples, None, is_taught=True) is None
