"""What a round can learn from: whether there is enough truth, which images are opened, known classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.errors import ImageError, ImageUnavailableError, NotEnoughTruthError
from core.network.checkpoint import Checkpoint
from core.rounds import ExampleSource, ExampleSummary
from core.schema import LabelSchema
from core.training.sampling import IMAGES_PER_ROUND, OpenExample, open_positions, select_keys


def check_truth(summaries: Sequence[ExampleSummary], schema: LabelSchema) -> list[int]:
    """Annotated training pixels per class; at least two classes must have some."""
    pixels = [sum(counts) for counts in zip(*(s.class_pixels for s in summaries), strict=True)]
    if sum(count > 0 for count in pixels) < 2:
        have = [name for name, count in zip(schema.names, pixels, strict=False) if count]
        raise NotEnoughTruthError(f"two classes need annotated pixels, only {', '.join(have) or 'none'} has")
    if len(pixels) != len(schema):
        raise ValueError(f"summaries count {len(pixels)} classes, the schema has {len(schema)}")
    return pixels


def open_examples(
    source: ExampleSource,
    summaries: Sequence[ExampleSummary],
    rng: np.random.Generator,
    limit: int = IMAGES_PER_ROUND,
) -> tuple[list[OpenExample], dict[str, str]]:
    """Open at most `limit` images to train on; what cannot be read is named and left out."""
    is_new = {summary.key: summary.is_new for summary in summaries}
    opened: list[OpenExample] = []
    skipped: dict[str, str] = {}
    is_away = False
    for key in (keys := select_keys(summaries, rng, limit)):
        try:
            opened_here = open_positions(source.open(key), is_new[key], rng, len(keys))
        except ImageError as error:
            skipped[key] = str(error)
            is_away = is_away or isinstance(error, ImageUnavailableError)
            continue
        if opened_here.by_class:
            opened.append(opened_here)
    if not opened and is_away:
        raise ImageUnavailableError(f"no annotated image can be had now: {skipped}")
    if not opened:
        raise NotEnoughTruthError(f"none of the annotated images could be read: {skipped}")
    return opened, skipped


def known_classes(start: Checkpoint | None) -> frozenset[str]:
    """Names of the classes that the model was taught."""
    if start is None:
        return frozenset()
    return frozenset(start.schema.names if start.taught is None else start.taught)


def painted_classes(schema: LabelSchema, pixels: Sequence[int]) -> frozenset[str]:
    return frozenset(name for name, count in zip(schema.names, pixels, strict=True) if count)
