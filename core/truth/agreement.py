"""Several label maps of one image into one: of one person at several times, and of several people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from core.objects.components import find_components
from core.painting import Box
from core.schema import IGNORE_INDEX

THICK_PX = 5
"""Thinner disputes are outlines that nobody draws twice the same way: no third person is asked about them."""

AROUND_PX = 6
"""A place in dispute is shown with so much around it."""


@dataclass(frozen=True)
class Dispute:
    """A place where people say different things, and the two classes that they give to it most often."""

    box: Box
    class_indices: tuple[int, int]


def combine_annotators(label_maps: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.uint8], int]:
    """Combine what several people say of one image.

    A pixel that only some of them labelled takes their label. One that they label differently takes what more
    than half of those who labelled it say, and is unlabelled where there is no such class: two people who
    differ wait for a third.

    Parameters
    ----------
    label_maps : one or more (H, W) uint8 of one shape

    Returns
    -------
    label_map : (H, W) uint8
    disagreement_px : how many pixels they label differently without a majority

    Raises
    ------
    ValueError
        No map, or maps of different shapes.

    Examples
    --------
    >>> import numpy as np
    >>> combined, n = combine_annotators([np.array([[0, 1, 255]], np.uint8), np.array([[0, 2, 1]], np.uint8)])
    >>> combined.tolist(), n
    ([[0, 255, 1]], 1)
    """
    shapes = {label_map.shape for label_map in label_maps}
    if len(shapes) != 1:
        raise ValueError(f"label maps of one image must have one shape, got {sorted(shapes)}")
    combined = label_maps[0].copy()
    differs = np.zeros(combined.shape, bool)
    for label_map in label_maps[1:]:
        differs |= (label_map != combined) & (label_map != IGNORE_INDEX) & (combined != IGNORE_INDEX)
        np.copyto(combined, label_map, where=combined == IGNORE_INDEX)
    combined[differs] = _decide(np.stack([label_map[differs] for label_map in label_maps]))
    return combined, int(np.count_nonzero(combined[differs] == IGNORE_INDEX))


def _decide(said: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What most of those who labelled each of `n` pixels say: `(people, n)` labels to `(n,)`."""
    n_people = (said != IGNORE_INDEX).sum(0)
    decided = np.full(said.shape[1], IGNORE_INDEX, np.uint8)
    for label in np.setdiff1d(np.unique(said), [IGNORE_INDEX]):
        decided[2 * (said == label).sum(0) > n_people] = label
    return decided


def find_disputes(
    label_maps: Sequence[NDArray[np.uint8]], combined: NDArray[np.uint8], n: int = 5
) -> tuple[Dispute, ...]:
    """The `n` largest places that somebody has yet to decide, the largest first.

    Parameters
    ----------
    label_maps : one per person
    combined : what `combine_annotators` made of them

    Examples
    --------
    >>> ours = np.zeros((20, 20), np.uint8)
    >>> theirs = ours.copy()
    >>> theirs[8:14, 8:14] = 1
    >>> find_disputes([ours, theirs], combine_annotators([ours, theirs])[0])
    (Dispute(box=Box(top=2, left=2, height=18, width=18), class_indices=(0, 1)),)
    """
    in_dispute = np.zeros(combined.shape, bool)
    for label_map in label_maps:
        in_dispute |= (label_map != IGNORE_INDEX) & (combined == IGNORE_INDEX)
    kernel = np.ones((THICK_PX, THICK_PX), np.uint8)
    found = find_components(cv2.morphologyEx(in_dispute.astype(np.uint8), cv2.MORPH_OPEN, kernel) > 0)
    is_large = np.zeros(len(found), bool)
    is_large[np.argsort(-found.areas, kind="stable")[:n]] = True
    places = [(box, pixels, int(pixels.sum())) for _, box, pixels in found.cut_out(is_large)]
    places.sort(key=lambda place: -place[2])
    return tuple(
        Dispute(_around(box, combined.shape), _most_said(label_maps, box, pixels))
        for box, pixels, _ in places
    )


def _most_said(
    label_maps: Sequence[NDArray[np.uint8]], box: tuple[slice, slice], pixels: NDArray[np.bool_]
) -> tuple[int, int]:
    said = np.concatenate([label_map[box][pixels] for label_map in label_maps])
    counts = np.bincount(said[said != IGNORE_INDEX], minlength=2)
    first, second = np.argsort(-counts, kind="stable")[:2]
    return int(first), int(second)


def _around(box: tuple[slice, slice], shape: tuple[int, ...]) -> Box:
    (top, bottom), (left, right) = (
        (max(part.start - AROUND_PX, 0), min(part.stop + AROUND_PX, size))
        for part, size in zip(box, shape, strict=True)
    )
    return Box(top, left, bottom - top, right - left)


def combine_versions(label_maps: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.uint8], int]:
    """Combine what one person said of an image at several times: the newest counts, pixel by pixel.

    Parameters
    ----------
    label_maps : one or more (H, W) uint8 of one shape, the oldest first

    Returns
    -------
    label_map : (H, W) uint8
    replaced_px : how many pixels had another label before

    Examples
    --------
    >>> combined, n = combine_versions([np.array([[0, 1, 255]], np.uint8), np.array([[0, 2, 255]], np.uint8)])
    >>> combined.tolist(), n
    ([[0, 2, 255]], 1)
    """
    combined = label_maps[0].copy()
    replaced = np.zeros(combined.shape, bool)
    for label_map in label_maps[1:]:
        said = label_map != IGNORE_INDEX
        replaced |= said & (combined != IGNORE_INDEX) & (combined != label_map)
        np.copyto(combined, label_map, where=said)
    return combined, int(np.count_nonzero(replaced))
