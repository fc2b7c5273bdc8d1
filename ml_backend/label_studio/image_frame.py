"""How large an image may be."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import ImageError

MAX_BYTES_PER_PIXEL = 8
"""Of the largest allowed image: four channels of 16 bits. Smaller images may have more channels."""

MAX_SIDE_PX = 65_535
"""The longest side that browsers draw on a canvas, and that JPEG can hold."""


@dataclass(frozen=True)
class ImageLimits:
    """Sizes above which nothing is decoded."""

    max_bytes: int
    max_pixels: int

    def check_bytes(self, n_bytes: int) -> None:
        if n_bytes > self.max_bytes:
            raise ImageError(
                f"the image file has more than {self.max_bytes / 1e6:g} MB, the limit MAX_IMAGE_MB"
            )

    def check_shape(self, height: int, width: int, n_channels: int = 1, n_bytes: int = 1) -> None:
        """Check pixels, and the memory that they would take.

        A side longer than browsers draw belongs to no photograph: such strips are made to keep a decoder
        busy, and each of their rows or columns costs time.
        """
        if height < 1 or width < 1:
            raise ImageError(f"an image of {width} x {height} pixels is empty")
        if max(height, width) > MAX_SIDE_PX:
            raise ImageError(
                f"the image has {width} x {height} pixels; no side may be longer than {MAX_SIDE_PX}"
            )
        if height * width > self.max_pixels:
            raise ImageError(
                f"the image has {width} x {height} pixels; MAX_IMAGE_MEGAPIXELS is {self.max_pixels / 1e6:g}"
            )
        if height * width * n_channels * n_bytes > self.max_pixels * MAX_BYTES_PER_PIXEL:
            raise ImageError(
                f"{n_channels} channels of {width} x {height} pixels are more than fits MAX_IMAGE_MEGAPIXELS"
            )
