"""Several label maps of one image into one: of one person at several times, and of several people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.schema import IGNORE_INDEX


def combine_annotators(label_maps: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.uint8], int]:
    """Combine what several people say of one image.

    A pixel that only some of them labelled takes their label; one that they label differently is
    unlabelled.

    Parameters
    ----------
    label_maps : one or more (H, W) uint8 of one shape

    Returns
    -------
    label_map : (H, W) uint8
    disagreement_px : how many pixels they label differently

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
    combined[differs] = IGNORE_INDEX
    return combined, int(np.count_nonzero(differs))


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
