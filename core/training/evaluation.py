"""Old model against new on the hold-out: scores with intervals, and whether the new one may go live."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.errors import ImageError
from core.network.checkpoint import Checkpoint
from core.network.device import EXACT, Compute
from core.network.feature_maps import FeatureMaps
from core.network.inference import infer_image, load_network
from core.network.mixture import FOREST, NETWORK, Share, mix_logits
from core.network.quick import QuickLearners
from core.rounds import Example, ExampleSource, ExampleSummary
from core.schema import IGNORE_INDEX, LabelSchema
from core.tiles import Slices
from core.training.metrics import Counts, bootstrap_interval, count_pixels, dice, iou, resample_units

BLOCK_PX = 64
"""Side of one held-out block, about an object with its surroundings: with its image, the unit that chance is
counted in."""

CONTEXT_PX = 32
"""What a block sees around itself: where most of what decides a pixel lies, at half the cost of all of it."""

MAX_BLOCKS = 64
"""Blocks that one round checks: about half a megapixel, a second on two cores."""

MAX_IMAGES = 32
"""Held-out images that one round opens."""

SURE_SHARE = 0.9
"""A new model is turned down when it is worse in at least this share of the resampled hold-outs."""

SMALLEST_DIFFERENCE = 0.005
"""Mean Dice: nobody sees less, so no model is turned down for it, however sure it is."""

FORGIVEN_DICE = 0.1
"""Divided by the number of blocks: resampled, few blocks would be too sure of a trifle."""


@dataclass(frozen=True)
class HeldOutBlock:
    """A window of the image `key` with held-out truth.

    `label_map` says `IGNORE_INDEX` outside the block proper, which is the part `window` of the `whole` image.
    """

    key: str
    image: NDArray[Any]
    label_map: NDArray[np.uint8]
    whole: NDArray[Any]
    window: Slices

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Classes of the annotated pixels."""
        return np.asarray(self.label_map[self.label_map != IGNORE_INDEX])


@dataclass(frozen=True)
class HeldOutScore:
    """What one model reaches on the hold-out.

    `counts` is `(n_blocks, C, 3)`, and `images` `(n_blocks,)` numbers their images from 0 on; `logits`
    `(n, C)` and `labels` `(n,)` are the annotated pixels.
    """

    counts: Counts
    images: NDArray[np.intp]
    logits: NDArray[np.float32]
    labels: NDArray[np.uint8]

    @property
    def mean_dice(self) -> float | None:
        """Mean over the classes that are there, or None where no pixel is held out."""
        return _mean_dice(self.counts.sum(0)[None])[0] if len(self.counts) else None

    def to_record(self, schema: LabelSchema, rng: np.random.Generator) -> dict[str, Any]:
        """Per class name `{"dice", "iou", "interval": [low, high]}`, None where nothing is known."""
        if not len(self.counts):
            return {}
        total = self.counts.sum(0)
        edges = bootstrap_interval(self.counts, self.images, dice, rng)
        return {
            name: {"dice": _number(d), "iou": _number(i), "interval": [_number(e) for e in interval]}
            for name, d, i, interval in zip(schema.names, dice(total), iou(total), edges, strict=True)
        }


def open_held_out(
    source: ExampleSource, summaries: Sequence[ExampleSummary], rng: np.random.Generator
) -> tuple[list[HeldOutBlock], dict[str, str]]:
    """Read at most `MAX_BLOCKS` held-out blocks from at most `MAX_IMAGES` images.

    Returns
    -------
    blocks : list of HeldOutBlock
    skipped : dict
        Keys of images that could not be read, with the reason.
    """
    keys = [summary.key for summary in summaries if sum(summary.held_out_pixels)]
    chosen = sorted(rng.permutation(len(keys))[:MAX_IMAGES])
    blocks: list[HeldOutBlock] = []
    skipped: dict[str, str] = {}
    for index in chosen:
        try:
            example = source.open(keys[index])
        except ImageError as error:
            skipped[keys[index]] = str(error)
            continue
        blocks += _cut_blocks(example)
    kept = sorted(rng.permutation(len(blocks))[:MAX_BLOCKS])
    return [blocks[i] for i in kept], skipped


def ask_learners(
    checkpoint: Checkpoint,
    blocks: Sequence[HeldOutBlock],
    schema: LabelSchema,
    compute: Compute = EXACT,
    maps: FeatureMaps | None = None,
    known: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
) -> dict[str, NDArray[np.float32]]:
    """What each learner of a model says of the annotated pixels of held-out blocks: `{name: (n, C)}` logits.

    Classes are matched to the schema by name. One that the model does not know gets minus infinity, so it
    is never answered. `maps` are those of images standardised as the model is. Copies of the learners that
    never saw the hold-out answer, where the model has some; those that count nothing, and those whose answers
    are `known`, are not asked.
    """
    checkpoint = checkpoint.as_judged
    rows = [checkpoint.schema.index_of(name) for name in schema.names]
    answers = dict(known)
    if NETWORK not in answers and (checkpoint.network_weight or not checkpoint.learners):
        network = load_network(checkpoint, compute)
        answers[NETWORK] = _ask(
            blocks, rows, lambda block: infer_image(checkpoint, network, block.image, compute), _annotated
        )
    maps = maps or FeatureMaps(checkpoint.statistics)
    counting = {name: own for name, own in checkpoint.counting.items() if name not in answers}
    quick = QuickLearners(counting, maps, n_threads=1)
    for name in counting:
        answers[name] = _ask(
            blocks,
            rows,
            partial(_ask_quick, quick, name),
            lambda block: _annotated(block)[_proper(block)],
            # Bands of a block would each need its surroundings; torch divides its own work among threads.
            at_once=torch.get_num_threads() if name == FOREST else 1,
        )
    return answers


def score_blocks(
    checkpoint: Checkpoint,
    blocks: Sequence[HeldOutBlock],
    schema: LabelSchema,
    compute: Compute = EXACT,
    maps: FeatureMaps | None = None,
) -> HeldOutScore:
    """Let a model answer for held-out blocks, as `ask_learners` does."""
    return score_logits(checkpoint, ask_learners(checkpoint, blocks, schema, compute, maps), blocks, schema)


def score_logits(
    checkpoint: Checkpoint,
    logits: Mapping[str, NDArray[np.float32]],
    blocks: Sequence[HeldOutBlock],
    schema: LabelSchema,
) -> HeldOutScore:
    """Score what the learners of a model said, mixed as the model mixes them."""
    n_classes = len(schema)
    if not blocks:
        nothing = np.zeros((0, n_classes), np.float32)
        none = np.zeros(0, np.intp)
        return HeldOutScore(np.zeros((0, n_classes, 3), np.int64), none, nothing, np.zeros(0, np.uint8))
    shares = dict(checkpoint.shares)
    if checkpoint.network_weight:
        shares[NETWORK] = Share(checkpoint.network_weight, checkpoint.temperature)
    mixed = mix_logits(logits, shares, checkpoint.mixture_temperature)
    ends = np.cumsum([len(block.labels) for block in blocks])[:-1]
    answers = np.split(mixed.argmax(1).astype(np.uint8), ends)
    counts = [count_pixels(a, block.labels, n_classes) for a, block in zip(answers, blocks, strict=True)]
    _, images = np.unique([block.key for block in blocks], return_inverse=True)
    labels = np.concatenate([block.labels for block in blocks])
    return HeldOutScore(np.stack(counts), images, mixed, labels)


def _ask(
    blocks: Sequence[HeldOutBlock],
    rows: Sequence[int | None],
    answer: Callable[[HeldOutBlock], NDArray[np.float32]],
    chosen: Callable[[HeldOutBlock], NDArray[np.bool_]],
    at_once: int = 1,
) -> NDArray[np.float32]:
    """Logits `(n, C)` at the `chosen` pixels of what a learner answers, `(C_own, h, w)` for each block."""

    def ask_one(block: HeldOutBlock) -> NDArray[np.float32]:
        own, where = answer(block), chosen(block)
        values = np.full((int(where.sum()), len(rows)), -np.inf, np.float32)
        for index, row in enumerate(rows):
            if row is not None:
                values[:, index] = own[row][where]
        return values

    with ThreadPoolExecutor(at_once) as pool:
        call = pool.map if at_once > 1 else map
        return np.concatenate([np.full((0, len(rows)), -np.inf, np.float32), *call(ask_one, blocks)])


def _ask_quick(quick: QuickLearners, name: str, block: HeldOutBlock) -> NDArray[np.float32]:
    return np.asarray(quick.logits(name, block.whole, block.window).cpu().numpy())


def _annotated(block: HeldOutBlock) -> NDArray[np.bool_]:
    return np.asarray(block.label_map != IGNORE_INDEX)


def _proper(block: HeldOutBlock) -> Slices:
    """Where the block proper lies in its own window."""
    rows, columns = (
        slice(min(part.start, CONTEXT_PX), min(part.start, CONTEXT_PX) + part.stop - part.start)
        for part in block.window
    )
    return rows, columns


def is_worse(old: HeldOutScore, new: HeldOutScore, shared: Sequence[int], rng: np.random.Generator) -> bool:
    """Whether `new` is worse than `old` by a difference that matters and that chance does not explain.

    Chance is counted by a paired bootstrap over images and blocks.

    Parameters
    ----------
    old, new : HeldOutScore
        Of the same blocks in the same order.
    shared : class indices that both models know
        Classes that only one knows would drown the comparison.
    """
    if not len(new.counts) or not shared:
        return False
    pair = np.stack([old.counts, new.counts], axis=1)[:, :, list(shared)]  # (n_blocks, 2, C, 3)
    resampled = resample_units(pair, old.images, rng)  # (B, 2, C, 3)
    change = _mean_dice(resampled[:, 1]) - _mean_dice(resampled[:, 0])
    is_sure = (change < 0).mean() >= SURE_SHARE
    matters = max(SMALLEST_DIFFERENCE, FORGIVEN_DICE / len(new.counts))
    return bool(is_sure and change.mean() < -matters)


def _cut_blocks(example: Example) -> list[HeldOutBlock]:
    image, held_out = example.image, example.held_out_map
    height, width = held_out.shape
    blocks = []
    for top in range(0, height, BLOCK_PX):
        for left in range(0, width, BLOCK_PX):
            proper = np.asarray(held_out[top : top + BLOCK_PX, left : left + BLOCK_PX])
            if (proper == IGNORE_INDEX).all():
                continue
            first = (max(top - CONTEXT_PX, 0), max(left - CONTEXT_PX, 0))
            window = np.array(
                image[
                    first[0] : top + BLOCK_PX + CONTEXT_PX,
                    first[1] : left + BLOCK_PX + CONTEXT_PX,
                ]
            )
            # The rim is shown to the network and not counted: its truth belongs to the neighbouring blocks.
            label_map = np.full(window.shape[:2], IGNORE_INDEX, np.uint8)
            row, column = top - first[0], left - first[1]
            label_map[row : row + proper.shape[0], column : column + proper.shape[1]] = proper
            bottom, right = (start + size for start, size in zip((top, left), proper.shape, strict=True))
            place = (slice(top, bottom), slice(left, right))
            blocks.append(HeldOutBlock(example.key, window, label_map, image, place))
    return blocks


def _mean_dice(counts: Counts) -> NDArray[np.float64]:
    """`(B, C, 3)` to `(B,)`: mean over the classes that are known; 0 where none is."""
    scores = dice(counts)
    known = ~np.isnan(scores)
    return np.asarray(np.where(known, scores, 0).sum(-1) / np.maximum(known.sum(-1), 1))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
