"""Sets of multi-class label maps: read from a folder, or drawn where there is none.

A set is a folder with `classes.txt`, one class name a line, and `pool` and `test` with `NAME.npz` files that
hold `image` `(H, W, C)` and `label_map` `(H, W)` uint8, 255 where nobody knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.drawn_domains import DRAWN
from core.schema import LabelSchema

Split = Literal["pool", "test"]

JUDGED_SHARE = 0.25
"""Part of the pool that judges where choices are made: the test images are for tables alone."""

DRAWN_POOL, DRAWN_TEST = 16, 6


@dataclass(frozen=True)
class MappedImage:
    """An image with its dense truth: `label_map` is `(H, W)` uint8, `IGNORE_INDEX` where nobody knows."""

    name: str
    image: NDArray[Any]
    label_map: NDArray[np.uint8]


@dataclass(frozen=True)
class DomainSet:
    """Images of one kind: people paint in `pool`, and `test` judges."""

    name: str
    schema: LabelSchema
    pool: tuple[MappedImage, ...]
    test: tuple[MappedImage, ...]


def load_domains(data: Path | None, names: Sequence[str] = (), split: Split = "test") -> list[DomainSet]:
    """The sets in `data`, or drawn ones without it; all, or those of `names`.

    With the split `pool` the last part of the pool judges, and nobody paints in it.

    Raises
    ------
    FileNotFoundError
        One of `names` is not there, or there is no set at all.
    """
    known = {path.parent.name: path.parent for path in sorted(data.glob("*/classes.txt"))} if data else DRAWN
    missing = sorted(set(names) - set(known))
    if missing or not known:
        raise FileNotFoundError(f"no set {', '.join(missing)} in {data or 'the drawn ones'}, only {[*known]}")
    chosen = [name for name in known if not names or name in names]
    found = [_load(data / name) if data else _draw(name) for name in chosen]
    return [_judge_by_pool(domain) for domain in found] if split == "pool" else found


def _load(folder: Path) -> DomainSet:
    classes = (folder / "classes.txt").read_text(encoding="utf-8").split("\n")
    schema = LabelSchema.of(*(name.strip() for name in classes if name.strip()))
    return DomainSet(folder.name, schema, *(_read_part(folder / part) for part in ("pool", "test")))


def _read_part(folder: Path) -> tuple[MappedImage, ...]:
    found = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as arrays:
            image, label_map = np.atleast_3d(arrays["image"]), arrays["label_map"].astype(np.uint8)
        if image.shape[:2] != label_map.shape:
            raise ValueError(f"{path}: the image is {image.shape[:2]}, its label map {label_map.shape}")
        found.append(MappedImage(path.stem, image, label_map))
    if not found:
        raise FileNotFoundError(f"no NAME.npz in {folder}")
    return tuple(found)


def _draw(name: str) -> DomainSet:
    kind = DRAWN[name]
    rng = np.random.default_rng(sorted(DRAWN).index(name))
    drawn = tuple(
        MappedImage(f"{name}-{i:03d}", *kind.draw(rng, kind.shape)) for i in range(DRAWN_POOL + DRAWN_TEST)
    )
    return DomainSet(name, LabelSchema.of(*kind.classes), drawn[:DRAWN_POOL], drawn[DRAWN_POOL:])


def _judge_by_pool(domain: DomainSet) -> DomainSet:
    n_judged = max(1, round(len(domain.pool) * JUDGED_SHARE))
    return replace(domain, pool=domain.pool[:-n_judged], test=domain.pool[-n_judged:])
