"""Which images a round opens and which patches a step sees; both bounded, whatever the project holds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from core.objects.measure import object_areas
from core.rounds import Example, ExampleSummary
from core.schema import IGNORE_INDEX, LabelSchema

IMAGES_PER_ROUND = 64
"""Images that one round opens: more than the patches of a short round can make use of."""

IMAGES_OF_LONG_TRAINING = 128
"""The same for training that nobody waits for: on street scenes 5 more than 64 gained .006 and .012 Dice."""

POSITIONS_PER_KIND = 2048
"""Candidate patch centres kept per class and per border; enough to cover every stroke of an image."""

PAINTED_PER_CLASS = 100_000
"""Painted pixels kept per class for the quick learners, over all images: with few images, many of each."""

SCANNED_PX = 4_000_000
"""Label maps with more pixels are looked through on a lattice of about this many points."""

Positions = NDArray[np.int64]
"""`(n, 2)` rows and columns."""


@dataclass(frozen=True)
class Shares:
    """How patch centres are chosen; the rest, up to 1, is any annotated pixel.

    `recent` is the share of patches taken from images whose truth is new, before the kind of centre
    is drawn. It is no larger because what is new may be the hardest places of all, where questions led.
    """

    class_uniform: float = 1 / 3
    border: float = 1 / 3
    recent: float = 0.25


OPENED_SHARE = 0.5
"""Of the images that a round opens, for those whose truth is new: more than they get of the patches, because
what is not opened now is not new in the next round."""


@dataclass(frozen=True)
class OpenExample:
    """An opened image with the places where patches may be centred, and with its painted pixels.

    `painted` has more of a class than `by_class` where few images are open: patches of neighbouring centres
    show the same, but a learner of single pixels learns from each. `held_out` has those of the hold-out.
    """

    example: Example
    is_new: bool
    by_class: dict[int, Positions]
    border: Positions
    painted: dict[int, Positions]
    held_out: dict[int, Positions] = field(default_factory=dict)


def select_keys(
    summaries: Sequence[ExampleSummary],
    rng: np.random.Generator,
    limit: int = IMAGES_PER_ROUND,
    recent: float = OPENED_SHARE,
) -> tuple[str, ...]:
    """Choose at most `limit` images to train on: new ones first, then replay that visits every class.

    New images take at most the share `recent` of the places while older ones could fill the rest; a
    replayed image is drawn for a class, each class equally often, so a rare class is never forgotten.

    Examples
    --------
    >>> old = ExampleSummary("old", (9, 9), (5, 0), (0, 0), (1, 0), (0, 0), is_new=False)
    >>> new = ExampleSummary("new", (9, 9), (0, 5), (0, 0), (0, 1), (0, 0), is_new=True)
    >>> sorted(select_keys([old, new], np.random.default_rng(0)))
    ['new', 'old']
    """
    usable = [summary for summary in summaries if sum(summary.class_pixels) > 0]
    new = [summary for summary in usable if summary.is_new]
    old = [summary for summary in usable if not summary.is_new]
    n_new = min(len(new), max(math.ceil(limit * recent), limit - len(old)))
    chosen = {new[i].key for i in rng.choice(len(new), n_new, replace=False)} if new else set()
    chosen.update(_replay(old, rng, limit - n_new))
    return tuple(summary.key for summary in usable if summary.key in chosen)


def _replay(old: Sequence[ExampleSummary], rng: np.random.Generator, n: int) -> Iterator[str]:
    """Yield `n` different keys, or all: classes take turns, images of one class in random order."""
    if len(old) <= n:
        yield from (summary.key for summary in old)
        return
    order = [old[i] for i in rng.permutation(len(old))]
    n_classes = max(len(summary.class_pixels) for summary in order)
    queues = [[s.key for s in order if s.class_pixels[c : c + 1] > (0,)] for c in range(n_classes)]
    queues = [queue for queue in queues if queue]
    taken: set[str] = set()
    turn = 0
    while len(taken) < n:
        queue = queues[turn % len(queues)]
        turn += 1
        # An image with several classes stands in several queues.
        while queue and queue[-1] in taken:
            queue.pop()
        if queue:
            taken.add(queue[-1])
            yield queue[-1]


def open_positions(
    example: Example, is_new: bool, rng: np.random.Generator, n_images: int = 1
) -> OpenExample:
    """Find the patch centres and painted pixels of one of `n_images` images, in bounded lists."""
    height, width = example.train_map.shape
    step = max(1, math.isqrt(height * width // SCANNED_PX))
    # A lattice with a new offset in every round: large images are never copied whole.
    offset = rng.integers(0, step, 2)
    label_map, held_out_map = (
        np.asarray(whole[offset[0] :: step, offset[1] :: step])
        for whole in (example.train_map, example.held_out_map)
    )

    def kept(where: NDArray[np.bool_], limit: int = POSITIONS_PER_KIND) -> Positions:
        positions = np.argwhere(where)
        if len(positions) > limit:
            positions = positions[rng.permutation(len(positions))[:limit]]
        return positions * step + offset

    most = max(POSITIONS_PER_KIND, PAINTED_PER_CLASS // n_images)
    painted = {c: kept(label_map == c, most) for c in _classes_in(label_map)}
    by_class = {c: at[rng.permutation(len(at))[:POSITIONS_PER_KIND]] for c, at in painted.items()}
    border = kept(_beside_another_class(label_map))
    held_out = {c: kept(held_out_map == c, most) for c in _classes_in(held_out_map)}
    return OpenExample(example, is_new, by_class, border, painted, held_out)


def with_held_out(opened: OpenExample) -> OpenExample:
    """The same, with the held-out pixels among the painted ones: for what no hold-out judges."""
    nothing = np.zeros((0, 2), np.int64)
    parts = opened.painted, opened.held_out
    both = {
        c: np.concatenate([part.get(c, nothing) for part in parts]) for c in sorted({*parts[0], *parts[1]})
    }
    return replace(opened, painted=both, held_out={})


def _classes_in(label_map: NDArray[np.uint8]) -> list[int]:
    found: list[int] = np.unique(label_map[label_map != IGNORE_INDEX]).tolist()
    return found


def collect_areas(examples: Sequence[OpenExample], schema: LabelSchema) -> tuple[list[int], ...]:
    """Areas in px of the painted objects per class, for `core.objects.measure.learn_limits`.

    Of a large image only one window around painted pixels is read.
    """
    areas: tuple[list[int], ...] = tuple([] for _ in schema.classes)
    side = math.isqrt(SCANNED_PX)
    for opened in examples:
        top, left = np.maximum(next(iter(opened.by_class.values()))[0] - side // 2, 0)
        window = opened.example.train_map[top : top + side, left : left + side]
        for class_index, areas_px in enumerate(object_areas(np.asarray(window), schema)):
            areas[class_index].extend(areas_px)
    return areas


def _beside_another_class(label_map: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Annotated pixels with an annotated pixel of another class to the right of or below them."""
    beside = np.zeros(label_map.shape, bool)
    for here, there in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
    ):
        a, b = label_map[here], label_map[there]
        beside[here] |= (a != b) & (a != IGNORE_INDEX) & (b != IGNORE_INDEX)
    return beside


def draw_centres(
    examples: Sequence[OpenExample], rng: np.random.Generator, n: int, shares: Shares
) -> list[tuple[OpenExample, int, int]]:
    """Draw `n` patch centres `(image, row, column)`, each on an annotated pixel."""
    return [_draw_centre(examples, rng, shares) for _ in range(n)]


def _draw_centre(
    examples: Sequence[OpenExample], rng: np.random.Generator, shares: Shares
) -> tuple[OpenExample, int, int]:
    new = [e for e in examples if e.is_new]
    pool = new if new and rng.random() < shares.recent else examples
    kind = rng.random()
    if kind < shares.class_uniform:
        classes = sorted({c for e in pool for c in e.by_class})
        class_index = classes[rng.integers(len(classes))]
        having = [e for e in pool if class_index in e.by_class]
        chosen = having[rng.integers(len(having))]
        positions = chosen.by_class[class_index]
    else:
        with_border = [e for e in pool if len(e.border)]
        use_border = bool(with_border) and kind < shares.class_uniform + shares.border
        having = with_border if use_border else list(pool)
        chosen = having[rng.integers(len(having))]
        positions = chosen.border if use_border else _any_class(chosen, rng)
    row, column = positions[rng.integers(len(positions))]
    return chosen, int(row), int(column)


def _any_class(opened: OpenExample, rng: np.random.Generator) -> Positions:
    """The positions of one class, drawn by how many pixels were found of each."""
    classes = sorted(opened.by_class)
    sizes = np.array([len(opened.by_class[c]) for c in classes], float)
    return opened.by_class[classes[rng.choice(len(classes), p=sizes / sizes.sum())]]
