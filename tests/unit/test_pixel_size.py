"""How large a pixel is, as files of microscopes say it."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from export.pixel_size import PixelSize, find_pixel_size

PIXELS = np.zeros((4, 6), np.uint8)


@pytest.mark.parametrize(
    "options",
    [
        {"ome": True, "metadata": {"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 500,
                                   "PhysicalSizeYUnit": "nm"}},
        {"imagej": True, "resolution": (4, 2), "metadata": {"unit": "um"}},
        {"imagej": True, "resolution": (4, 2), "metadata": {"unit": "\\u00B5m"}},
        {"resolution": (40_000, 20_000), "resolutionunit": "CENTIMETER"},
    ],
)  # fmt: skip
def test_ome_imagej_and_tiff_say_the_size_of_a_pixel(tmp_path, options):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, **options)
    size = find_pixel_size(tmp_path / "a.tif")
    assert size is not None
    assert (size.height_um, size.width_um) == pytest.approx((0.5, 0.25))


@pytest.mark.parametrize("options", [{}, {"resolution": (72, 72), "resolutionunit": "INCH"}])
def test_the_size_of_a_print_says_nothing_of_the_specimen(tmp_path, options):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, **options)
    assert find_pixel_size(tmp_path / "a.tif") is None


def test_what_is_no_tiff_says_nothing(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0 and nothing else")
    assert find_pixel_size(tmp_path / "a.tif") is None


def test_what_is_written_with_a_size_says_it_again(tmp_path):
    size = PixelSize(0.4, 0.2)
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, metadata=None, **size.tiff_resolution())
    again = find_pixel_size(tmp_path / "a.tif")
    assert again is not None
    assert (again.height_um, again.width_um) == pytest.approx((0.4, 0.2), rel=1e-4)
