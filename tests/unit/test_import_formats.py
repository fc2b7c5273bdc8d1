"""Files of microscope makers, hospitals and satellites: all pixels, and names that say so."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from kept_uploads import LIMITS, noise
from vendor_files import STACK, write_czi, write_dicom, write_lif

from core.errors import BrushloopError
from core.painting import Box
from ingest.scaling import plan_scaling
from ml_backend.command.import_files import open_file


@pytest.mark.parametrize("compression", ["uncompressed:", "zstd1:ExplicitLevel=2"])
def test_slices_of_a_czi_have_all_channels_and_boxes_are_read(tmp_path: Path, compression: str) -> None:
    write_czi(tmp_path / "a.czi", compression)
    with open_file(tmp_path / "a.czi", LIMITS) as raster:
        assert [frame.name for frame in raster.frames] == ["z00", "z01", "z02"]
        assert raster.channels == ("DAPI", "GFP")
        pixels = raster.frames[2].read(Box(5, 7, 20, 30))
    assert np.array_equal(pixels, np.moveaxis(STACK[:, 2, 5:25, 7:37], 0, 2))


def test_slices_of_a_lif_have_all_channels(tmp_path: Path) -> None:
    pytest.importorskip("liffile")
    write_lif(tmp_path / "a.lif", STACK)
    with open_file(tmp_path / "a.lif", LIMITS) as raster:
        assert [frame.name for frame in raster.frames] == ["z00", "z01", "z02"]
        pixels = raster.frames[1].read(Box(5, 7, 20, 30))
    assert np.array_equal(pixels, np.moveaxis(STACK[:, 1, 5:25, 7:37], 0, 2))


class FakeND2:
    """As nd2's file behaves: axes of one entry are missing from the frames that it reads."""

    def __init__(self, frames: np.ndarray, axes: str, loops: tuple[dict[str, int], ...]) -> None:
        self._frames, self.loop_indices = frames, loops
        self.sizes = dict(zip(axes, frames.shape[1:], strict=True))
        self.sizes = {"Z": len(loops)} | {axis: size for axis, size in self.sizes.items() if size > 1}
        self.is_rgb = axes.endswith("S") and frames.shape[-1] == 3
        self.dtype, self.metadata = frames.dtype, None

    def read_frame(self, number: int) -> np.ndarray:
        return self._frames[number].squeeze()

    def __enter__(self) -> FakeND2:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("shape", [(1, 40, 50, 1), (2, 40, 50, 1), (1, 40, 50, 3)])
def test_slices_of_an_nd2_have_all_channels_and_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    frames = noise(3, *shape)
    loops = tuple({"Z": z} for z in range(3))
    monkeypatch.setitem(
        sys.modules, "nd2", SimpleNamespace(ND2File=lambda path: FakeND2(frames, "CYXS", loops))
    )
    (tmp_path / "a.nd2").write_bytes(b"\xda\xce\xbe\x0a" + bytes(200))
    with open_file(tmp_path / "a.nd2", LIMITS) as raster:
        assert [frame.name for frame in raster.frames] == ["z00", "z01", "z02"]
        assert raster.frames[0].is_colour == (shape[3] == 3)
        pixels = raster.frames[2].read(Box(5, 7, 20, 30))
    expected = np.moveaxis(frames[2, :, 5:25, 7:37], 0, 2).reshape(20, 30, -1)
    assert np.array_equal(pixels, expected)


def test_frames_of_a_dicom_file_become_pictures(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", STACK[0], NumberOfFrames=3)
    with open_file(tmp_path / "a.dcm", LIMITS) as raster:
        assert [frame.name for frame in raster.frames] == ["f00", "f01", "f02"]
        assert np.array_equal(raster.frames[2].read(Box(0, 0, 40, 50))[:, :, 0], STACK[0, 2])


def test_signed_values_of_a_scan_are_shifted_and_that_is_said(tmp_path: Path) -> None:
    values = np.array([[-1000, 0], [40, 3000]], np.int16)
    write_dicom(tmp_path / "a.dcm", values)
    with open_file(tmp_path / "a.dcm", LIMITS) as raster:
        scaling = plan_scaling(raster.frames)
        stored = scaling.apply(raster.frames[0].read(Box(0, 0, 2, 2)))
    assert scaling.words == "stored is the value plus 32768"
    assert np.array_equal(stored[:, :, 0].astype(int) - 32768, values)


def test_a_dicom_film_is_turned_so_that_bright_is_high(tmp_path: Path) -> None:
    write_dicom(
        tmp_path / "a.dcm", np.array([[0, 65535]], np.uint16), PhotometricInterpretation="MONOCHROME1"
    )
    with open_file(tmp_path / "a.dcm", LIMITS) as raster:
        assert raster.frames[0].read(Box(0, 0, 1, 2))[0, :, 0].tolist() == [65535, 0]


def test_a_geotiff_keeps_four_bands_and_its_place_on_the_earth(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    bands = noise(4, 30, 40)
    place = rasterio.Affine(10, 0, 500_000, 0, -10, 5_400_000)
    options = {"driver": "GTiff", "height": 30, "width": 40, "count": 4, "dtype": "uint16"}
    with rasterio.open(tmp_path / "a.tif", "w", crs="EPSG:32633", transform=place, **options) as file:
        file.write(bands)
    with open_file(tmp_path / "a.tif", LIMITS) as raster:
        assert raster.georeference == "EPSG:32633, 10 0 500000 0 -10 5400000"
        assert np.array_equal(raster.frames[0].read(Box(0, 0, 30, 40)), np.moveaxis(bands, 0, 2))


@pytest.mark.parametrize(
    ("start", "module"),
    [
        (b"ZISRAWFILE" + bytes(200), "pylibCZIrw.czi"),
        (b"\xda\xce\xbe\x0a" + bytes(200), "nd2"),
        (b"\x70\0\0\0\0\0\0\0\x2a" + bytes(200), "liffile"),
        (bytes(128) + b"DICM" + bytes(80), "pydicom"),
    ],
)
def test_a_format_whose_library_is_absent_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes, module: str
) -> None:
    (tmp_path / "a.bin").write_bytes(start)
    monkeypatch.setitem(sys.modules, module, None)
    with (
        pytest.raises(BrushloopError, match=r"pip install 'brushloop\[formats\]'"),
        open_file(tmp_path / "a.bin", LIMITS),
    ):
        pass


@pytest.mark.parametrize(
    "start",
    [
        b"ZISRAWFILE" + bytes(200),
        b"\xda\xce\xbe\x0a" + bytes(200),
        b"\x70\0\0\0\0\0\0\0\x2a" + bytes(200),
        bytes(128) + b"DICM" + bytes(80),
    ],
)
def test_a_broken_file_of_these_is_refused_like_any_other(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(start)
    with pytest.raises(BrushloopError), open_file(tmp_path / "a.bin", LIMITS):
        pass
