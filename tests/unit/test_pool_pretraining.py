"""Base weights for a project's own images: repeatable, used by its first round, and in nobody's way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from review_fakes import ReviewBench

from core.errors import ImageError, RoundCancelledError
from core.network.base_weights import fits_base, load_base, save_base
from core.network.unet import build_architecture
from core.pretraining.pool_pretraining import PoolBase, pretrain_on_pool
from core.rounds import Example
from core.schema import LabelSchema
from core.synthetic import make_image
from core.training.beginning import begin
from core.training.sampling import open_positions
from ml_backend.due import SMALLEST_POOL, find_due
from ml_backend.rounds.pool_pretraining import pretrain_pool
from ml_backend.storage import reviews
from ml_backend.storage.projects import get_project


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    made: list[ReviewBench] = []

    def make(n_tasks: int, **settings: Any) -> ReviewBench:
        made.append(ReviewBench(tmp_path / str(len(made)), n_tasks, **settings))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def _pool(channels: int = 1) -> list[np.ndarray]:
    drawn = [make_image("fluorescence", np.random.default_rng(seed), (96, 80), 6)[0] for seed in range(2)]
    tint = np.linspace(1, 0.5, channels)
    return [(image * tint).astype(np.uint8) for image in drawn]


def _pretrain(images: list[np.ndarray], n_steps: int = 2, seed: int = 0, **more: Any) -> PoolBase:
    return pretrain_on_pool(images, seed, now=lambda: 0.0, budget_s=60, max_steps=n_steps, **more)


def due(bench: ReviewBench) -> set[str]:
    with bench.parts.database.read() as connection:
        project = get_project(connection, 1)
        return set(find_due(connection, project, bench.parts.settings, bench.clock())) - {"reconcile"}


def base_of(bench: ReviewBench) -> Path:
    with bench.parts.database.read() as connection:
        return bench.parts.artifacts(get_project(connection, 1)).base


def test_the_same_seed_gives_the_same_weights_and_the_pool_changes_them() -> None:
    first, again, other = _pretrain(_pool()), _pretrain(_pool()), _pretrain(_pool(3))
    assert all(torch.equal(first.weights[name], again.weights[name]) for name in first.weights)
    assert any(not torch.equal(first.weights[name], other.weights[name]) for name in first.weights)
    assert first.weights.keys() == load_base().keys()
    assert not torch.equal(first.weights["detail.weight"], load_base()["detail.weight"])


def test_hidden_pixels_are_guessed_better_than_by_the_mean_of_the_project() -> None:
    assert _pretrain(_pool(), n_steps=1).guess_loss > _pretrain(_pool(), n_steps=20).guess_loss


def test_it_ends_with_its_time_and_stops_when_asked_to() -> None:
    seconds = iter(range(0, 1000, 40))
    found = pretrain_on_pool(_pool(), 0, now=lambda: float(next(seconds)), budget_s=60)
    assert found.n_steps == 1
    with pytest.raises(RoundCancelledError):
        _pretrain(_pool(), should_stop=lambda: True)


def test_a_pool_without_images_is_refused() -> None:
    with pytest.raises(ImageError, match="no image"):
        _pretrain([])


def test_it_is_off_by_default(make: Any) -> None:
    assert "pretrain" not in due(make(SMALLEST_POOL))


def test_a_project_without_a_model_makes_its_base_weights_once(make: Any) -> None:
    bench = make(SMALLEST_POOL, pretrain_on_pool=True)
    assert due(bench) == {"pretrain"}
    assert pretrain_pool(bench.parts, 1, lambda: False, max_steps=1)
    assert due(bench) == set()
    assert fits_base(build_architecture(1, 4), base_of(bench))
    assert load_base(base_of(bench)).keys() == load_base().keys()


@pytest.mark.parametrize("n_tasks", [0, SMALLEST_POOL - 1])
def test_a_small_pool_is_left_alone(make: Any, n_tasks: int) -> None:
    assert "pretrain" not in due(make(n_tasks, pretrain_on_pool=True))


def test_a_project_with_a_model_needs_none(make: Any) -> None:
    bench = make(SMALLEST_POOL, pretrain_on_pool=True)
    bench.promote()
    assert "pretrain" not in due(bench)


def test_strokes_and_people_who_ask_come_first(make: Any) -> None:
    painted, asked = (make(SMALLEST_POOL, pretrain_on_pool=True) for _ in range(2))
    painted.bench.submit(1)
    with asked.parts.database.write() as connection:
        reviews.note_asked(connection, 1, asked.clock())
    for bench in (painted, asked):
        assert not pretrain_pool(bench.parts, 1, lambda: False, max_steps=1)
        assert not base_of(bench).exists()


def test_images_that_cannot_be_read_are_left_out(make: Any) -> None:
    bench = make(SMALLEST_POOL, pretrain_on_pool=True)
    bench.bench.images.broken |= {1, 2}
    assert pretrain_pool(bench.parts, 1, lambda: False, max_steps=1)
    bench = make(SMALLEST_POOL, pretrain_on_pool=True)
    bench.bench.images.broken |= set(range(SMALLEST_POOL + 1))
    with pytest.raises(ImageError):
        pretrain_pool(bench.parts, 1, lambda: False, max_steps=1)


def test_base_weights_of_an_older_network_give_way_to_the_shipped_ones(tmp_path: Path) -> None:
    save_base(tmp_path / "base", build_architecture(3, 2, (4, 6)), {}, {})
    schema, image = LabelSchema.of("Background", "Cell"), _pool()[0]
    label_map = np.zeros(image.shape[:2], np.uint8)
    opened = open_positions(Example("a", image, label_map, label_map), True, np.random.default_rng(0))
    beginning = begin(None, schema, [opened], np.random.default_rng(0), base=tmp_path / "base")
    assert beginning.origin == "base"
    assert torch.equal(beginning.weights["head.weight"], load_base()["head.weight"])


def test_the_first_round_starts_from_the_project_s_own_base(make: Any) -> None:
    bench = make(SMALLEST_POOL, pretrain_on_pool=True)
    assert pretrain_pool(bench.parts, 1, lambda: False, max_steps=1)
    bench.bench.submit(1, 2, 3)
    bench.bench.loop.build_truth(1)
    assert bench.bench.loop.run_round(1) is not None
    assert bench.bench.trainer.specs[-1].settings.base == base_of(bench)
