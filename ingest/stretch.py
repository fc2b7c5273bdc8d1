"""The picture that people see: each channel's contrast stretched between percentiles, and given a colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.painting import Box
from ingest.frames import COLOUR_CHANNELS, Frame
from ingest.scaling import Scaling

PERCENTILES = (0.2, 99.8)
SAMPLES_PER_SIDE, SAMPLE_PX = 6, 192
"""Contrast is measured in so many windows along each side, so that a whole slide is not walked through."""

NAMED = {
    "grey": (255, 255, 255),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "yellow": (255, 255, 0),
    "orange": (255, 128, 0),
    "none": (0, 0, 0),
}
IN_ORDER = {
    1: ("grey",),
    2: ("green", "magenta"),
    3: ("red", "green", "blue"),
    4: ("blue", "green", "red", "grey"),
}
FURTHER = ("cyan", "magenta", "yellow", "orange")

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Look:
    """How channels are shown: `low` and `high` of each, and its colour as `(R, G, B)` of 0..255."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    colours: tuple[Colour, ...]
    is_plain: bool = False  # shown as it is


def choose_colours(n_channels: int, is_colour: bool, wanted: Sequence[Colour] = ()) -> tuple[Colour, ...]:
    """One colour per channel; `wanted` comes first, and channels beyond it are hidden.

    Examples
    --------
    >>> choose_colours(2, False)
    ((0, 255, 0), (255, 0, 255))
    """
    if wanted:
        return tuple([*wanted, *[NAMED["none"]] * n_channels][:n_channels])
    if is_colour:  # what is beyond red, green and blue is for the network
        return tuple(
            ([NAMED["red"], NAMED["green"], NAMED["blue"]] + [NAMED["none"]] * n_channels)[:n_channels]
        )
    names = IN_ORDER.get(n_channels) or (*IN_ORDER[4], *FURTHER * n_channels)
    return tuple(NAMED[name] for name in names[:n_channels])


def plan_look(
    frame: Frame,
    scaling: Scaling,
    percentiles: tuple[float, float] = PERCENTILES,
    wanted: Sequence[Colour] = (),
) -> Look:
    """Measure contrast in windows all over the frame; 8 bits of grey or colour are shown as they are."""
    height, width, n_channels = frame.shape
    is_shown = n_channels == 1 or (frame.is_colour and n_channels == COLOUR_CHANNELS)
    colours = choose_colours(n_channels, frame.is_colour, wanted)
    if is_shown and scaling.dtype == np.uint8 and not wanted:
        nothing, all_ = (0.0,) * n_channels, (255.0,) * n_channels
        return Look(nothing, all_, colours, is_plain=True)
    windows = [scaling.apply(frame.read(box)).reshape(-1, n_channels) for box in _sample_boxes(height, width)]
    values = np.concatenate(windows)
    low, high = np.percentile(values, percentiles, axis=0)
    if frame.is_colour:  # one range for all three keeps the colours
        low[:COLOUR_CHANNELS], high[:COLOUR_CHANNELS] = (
            low[:COLOUR_CHANNELS].min(),
            high[:COLOUR_CHANNELS].max(),
        )
    return Look(tuple(map(float, low)), tuple(map(float, high)), colours)


def draw_preview(pixels: NDArray[Any], look: Look) -> NDArray[np.uint8]:
    """`(h, w)` or `(h, w, 3)` uint8 of scaled pixels `(h, w, C)`: what people see."""
    if look.is_plain:
        return np.asarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels[:, :, :COLOUR_CHANNELS])
    if pixels.shape[2] == 1 and look.colours[0] == NAMED["grey"]:
        return np.asarray(_stretch(pixels[:, :, 0], look, 0).astype(np.uint8))
    total = np.zeros((*pixels.shape[:2], 3), np.float32)
    for channel, colour in enumerate(look.colours):
        if any(colour):
            part = _stretch(pixels[:, :, channel], look, channel)
            for band, strength in enumerate(colour):
                if strength:
                    total[:, :, band] += part * np.float32(strength / 255)
    return np.asarray(np.minimum(total, 255).astype(np.uint8))


def encode_png(preview: NDArray[np.uint8]) -> bytes:
    """A PNG of grey or RGB pixels."""
    pixels = preview if preview.ndim == 2 else cv2.cvtColor(preview, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise ValueError(f"a picture of {preview.shape} cannot be encoded")
    return bytes(data)


def _stretch(values: NDArray[Any], look: Look, channel: int) -> NDArray[np.float32]:
    low, high = look.low[channel], look.high[channel]
    span = high - low if high > low else 1.0
    stretched = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / span)
    return np.asarray(np.clip(stretched, 0, 255))


def _sample_boxes(height: int, width: int) -> list[Box]:
    return [
        Box(top, left, min(SAMPLE_PX, height), min(SAMPLE_PX, width))
        for top in _starts(height)
        for left in _starts(width)
    ]


def _starts(length: int) -> list[int]:
    if length <= SAMPLE_PX:
        return [0]
    last = length - SAMPLE_PX
    n = min(SAMPLES_PER_SIDE, -(-length // SAMPLE_PX))
    return sorted({round(last * i / (n - 1)) for i in range(n)})
