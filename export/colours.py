"""One colour per class, the same in every picture."""

from __future__ import annotations

from core.schema import IGNORE_INDEX

COLOURS = (
    (70, 110, 180), (225, 29, 72), (34, 160, 90), (245, 158, 11), (147, 51, 234),
    (6, 182, 212), (217, 70, 239), (132, 204, 22), (120, 80, 50), (15, 118, 110),
)  # fmt: skip
"""RGB per class index, repeated when there are more classes."""

UNLABELLED = (255, 255, 255)


def colour_of(class_index: int) -> tuple[int, int, int]:
    return COLOURS[class_index % len(COLOURS)]


def palette() -> list[int]:
    """256 times red, green, blue: what Pillow takes for a label map; unlabelled pixels are white.

    >>> palette()[:3], palette()[-3:]
    ([70, 110, 180], [255, 255, 255])
    """
    colours = [*(colour_of(index) for index in range(IGNORE_INDEX)), UNLABELLED]
    return [value for colour in colours for value in colour]
