"""The hold-out is read in bounded pieces, and a model is turned down only when that is no accident."""

from __future__ import annotations

import numpy as np
import pytest

from core.errors import ImageError
from core.network.checkpoint import Checkpoint
from core.network.pixels import PixelStatistics
from core.network.unet import build_architecture, initial_weights
from core.rounds import Example, ExampleSummary
from core.schema import IGNORE_INDEX, LabelSchema
from core.training.evaluation import BLOCK_PX, MAX_BLOCKS, HeldOutScore, is_worse, open_held_out, score_blocks

SCHEMA = LabelSchema.of("Background", "Cell")


class OneImage:
    """A source that gives the same example under every key; `broken` ones cannot be read."""

    def __init__(self, held_out_map: np.ndarray, n: int = 1, broken: tuple[str, ...] = ()) -> None:
        self.held_out_map, self.keys, self.broken = held_out_map, [str(i) for i in range(n)], broken

    def summaries(self) -> list[ExampleSummary]:
        return [
            ExampleSummary(key, self.held_out_map.shape, (0, 0), (9, 9), (0, 0), (0, 0), False)
            for key in self.keys
        ]

    def open(self, key: str) -> Example:
        if key in self.broken:
            raise ImageError("no such file")
        image = np.arange(self.held_out_map.size, dtype=np.uint16).reshape(*self.held_out_map.shape, 1)
        return Example(key, image, np.full_like(self.held_out_map, IGNORE_INDEX), self.held_out_map)


def _score(hits: list[int], n_images: int | None = None) -> HeldOutScore:
    """Blocks of 100 pixels of each class, of which `hits` are right, in equally many blocks per image."""
    counts = np.array([[[h, 100 - h, 100 - h]] * 2 for h in hits]).reshape(-1, 2, 3)
    images = np.arange(len(hits)) * (n_images or len(hits)) // max(len(hits), 1)
    return HeldOutScore(counts, images, np.zeros((0, 2), np.float32), np.zeros(0, np.uint8))


def test_every_held_out_pixel_is_in_exactly_one_block_with_the_image_under_it() -> None:
    held_out = np.full((150, 100), IGNORE_INDEX, np.uint8)
    held_out[3:90, 60:70], held_out[149, 99] = 1, 0
    blocks, _ = open_held_out(OneImage(held_out), OneImage(held_out).summaries(), np.random.default_rng(0))
    seen: list[int] = []
    for block in blocks:
        assert max(block.label_map.shape) <= 2 * BLOCK_PX
        seen += block.image[block.label_map != IGNORE_INDEX].ravel().tolist()
    assert sorted(seen) == np.flatnonzero(held_out != IGNORE_INDEX).tolist()


def test_no_more_blocks_than_the_limit_are_read_and_unreadable_images_are_named() -> None:
    source = OneImage(np.ones((512, 512), np.uint8), n=5, broken=("2",))
    blocks, skipped = open_held_out(source, source.summaries(), np.random.default_rng(0))
    assert len(blocks) == MAX_BLOCKS
    assert skipped == {"2": "no such file"}


def test_a_model_that_lacks_a_class_never_answers_it() -> None:
    architecture = build_architecture(1, 1, (2, 3))
    weights = initial_weights(architecture, np.random.default_rng(0))
    checkpoint = Checkpoint(LabelSchema.of("Cell"), architecture, weights, PixelStatistics((0.0,), (1.0,)))
    held_out = np.ones((20, 20), np.uint8)
    source = OneImage(held_out)
    blocks, _ = open_held_out(source, source.summaries(), np.random.default_rng(0))
    score = score_blocks(checkpoint, blocks, SCHEMA)
    assert (score.logits.argmax(1) == 1).all()
    assert score.counts.sum(0)[1].tolist() == [400, 0, 0]


def test_without_blocks_there_is_no_score() -> None:
    architecture = build_architecture(1, 2, (2, 3))
    weights = initial_weights(architecture, np.random.default_rng(0))
    checkpoint = Checkpoint(SCHEMA, architecture, weights, PixelStatistics((0.0,), (1.0,)))
    score = score_blocks(checkpoint, [], SCHEMA)
    assert score.mean_dice is None
    assert score.to_record(SCHEMA, np.random.default_rng(0)) == {}


@pytest.mark.parametrize(
    ("old", "new", "worse"),
    [
        ([90] * 20, [70] * 20, True),
        ([90] * 20, [95] * 20, False),
        ([90, 50] * 10, [50, 90] * 10, False),  # up here, down there
        ([90], [88], False),  # one block is no proof of a trifle
        ([90], [40], True),
        ([90] * 300, [90, 90, 89] * 100, False),  # surely worse, and nobody sees it
        ([90] * 300, [89] * 300, True),
        ([], [], False),
    ],
)
def test_a_new_model_is_worse_only_when_chance_does_not_explain_it(
    old: list[int], new: list[int], worse: bool
) -> None:
    assert is_worse(_score(old), _score(new), [0, 1], np.random.default_rng(0)) is worse


@pytest.mark.parametrize(("n_images", "worse"), [(20, True), (2, False), (1, True)])
def test_many_blocks_of_one_image_say_little_of_the_next_one(n_images: int, worse: bool) -> None:
    old, new = [90] * 20, [93] * 10 + [80] * 10  # better in the first image, worse in the other
    scores = _score(old, n_images), _score(new, n_images)
    assert is_worse(*scores, [0, 1], np.random.default_rng(0)) is worse


def test_blocks_know_their_image() -> None:
    architecture = build_architecture(1, 2, (2, 3))
    weights = initial_weights(architecture, np.random.default_rng(0))
    checkpoint = Checkpoint(SCHEMA, architecture, weights, PixelStatistics((0.0,), (1.0,)))
    source = OneImage(np.ones((64, 128), np.uint8), n=3)
    blocks, _ = open_held_out(source, source.summaries(), np.random.default_rng(0))
    assert [block.key for block in blocks] == ["0", "0", "1", "1", "2", "2"]
    assert score_blocks(checkpoint, blocks, SCHEMA).images.tolist() == [0, 0, 1, 1, 2, 2]


def test_classes_that_only_one_model_knows_do_not_decide() -> None:
    assert not is_worse(_score([90] * 20), _score([10] * 20), [], np.random.default_rng(0))
