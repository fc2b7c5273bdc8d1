"""Every kind of file: what people see, what the network reads, and what comes out again under its name.

Files are made by other libraries than the one that reads them, where there is another: GDAL, libtiff through
Pillow and OpenCV, imagecodecs. CZI is written by Zeiss's own library; ND2 has no writer, see
`test_import_formats`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from bright_model import SCHEMA, save_bright_model, squares
from click.testing import CliRunner
from kept_uploads import LIMITS, KeptUploads
from PIL import Image
from vendor_files import write_czi, write_dicom, write_lif

from core.painting import Box
from export.formats import write_instances, write_pngs
from export.label_files import read_label_png
from export.result import Result
from ml_backend.command.cli import commands
from ml_backend.command.import_files import Reading, open_file, read_pictures
from ml_backend.command.import_folder import FolderImport, Present, Target
from ml_backend.command.import_tasks import Choices
from ml_backend.command.project_results import file_name_of
from ml_backend.label_studio.images import CachedImages, ImageAccess, ImageSettings

GREY = squares(2)
COLOUR = np.dstack([GREY, GREY, GREY])
DEEP = GREY.astype(np.uint16) * 257
FOUR = np.dstack([DEEP, DEEP // 2, DEEP // 4, DEEP // 8])
NUCLEI = GREY > 0
PLACE = (10, 0, 500_000, 0, -10, 5_400_000)


def with_gdal(pixels: np.ndarray, **options: Any) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        rasterio = pytest.importorskip("rasterio")
        planes = np.moveaxis(pixels, 2, 0) if pixels.ndim == 3 else pixels[np.newaxis]
        sizes = dict(zip(("count", "height", "width"), planes.shape, strict=True))
        georeference = {"crs": "EPSG:32633", "transform": rasterio.Affine(*PLACE)}
        kinds = {"driver": "GTiff", "dtype": planes.dtype.name}
        with rasterio.open(path, "w", **kinds, **sizes, **georeference, **options) as file:
            file.write(planes)
            if options.get("tiled"):
                file.build_overviews([2])

    return write


def with_pillow(pixels: np.ndarray, **options: Any) -> Callable[[Path], Any]:
    return lambda path: Image.fromarray(pixels).save(path, **options)


def with_imagecodecs(encode: str, pixels: np.ndarray, **options: Any) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(getattr(imagecodecs, encode)(pixels, **options))


def ome_by_hand(path: Path) -> None:
    """Two slices of two channels with OME's XML, their pages by libtiff."""
    text = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="{GREY.shape[1]}" '
        f'SizeY="{GREY.shape[0]}" SizeC="2" SizeZ="2" SizeT="1"><Channel ID="Channel:0:0" Name="DAPI"/>'
        '<Channel ID="Channel:0:1" Name="GFP"/><TiffData/></Pixels></Image></OME>'
    )
    pages = [Image.fromarray(plane) for plane in (DEEP, DEEP // 2, DEEP, DEEP // 2)]
    pages[0].save(path, save_all=True, append_images=pages[1:], compression="tiff_lzw", tiffinfo={270: text})


def slices(n_channels: int) -> np.ndarray:
    """`(C, Z, Y, X)`."""
    return np.stack([np.stack([DEEP, DEEP, DEEP])] * n_channels)


@dataclass(frozen=True)
class Kind:
    """How a file is written, and what the network has to read of it, frame by frame."""

    write: Callable[[Path], Any]
    pixels: np.ndarray
    frames: tuple[str, ...] = ("",)
    is_lossy: bool = False


DEEP_TWO = np.dstack([DEEP, DEEP // 2])
FLOATS = GREY.astype(np.float32) / 100
KINDS = {
    "png.png": Kind(with_imagecodecs("png_encode", COLOUR), COLOUR),
    "png-16.png": Kind(with_imagecodecs("png_encode", DEEP), DEEP),
    "png-16-colour.png": Kind(
        with_imagecodecs("png_encode", np.dstack([DEEP] * 3)), np.dstack([DEEP] * 3)
    ),
    "jpeg.jpg": Kind(with_imagecodecs("jpeg_encode", COLOUR, level=98), COLOUR, is_lossy=True),
    "webp.webp": Kind(with_imagecodecs("webp_encode", COLOUR, lossless=True), COLOUR),
    "avif.avif": Kind(with_imagecodecs("avif_encode", COLOUR, level=95), COLOUR, is_lossy=True),
    "bmp.bmp": Kind(lambda path: cv2.imwrite(str(path), COLOUR), COLOUR),
    "gif.gif": Kind(with_imagecodecs("gif_encode", GREY), GREY),
    "gdal-lzw.tif": Kind(with_gdal(DEEP, compress="lzw", predictor=2), DEEP),
    "gdal-deflate-tiles.tif": Kind(
        with_gdal(FOUR, compress="deflate", tiled=True, blockxsize=32, blockysize=32), FOUR
    ),
    "gdal-zstd-planes.tif": Kind(with_gdal(FOUR, compress="zstd", interleave="band"), FOUR),
    "gdal-jpeg.tif": Kind(
        with_gdal(COLOUR, compress="jpeg", jpeg_quality=98, photometric="ycbcr"), COLOUR, is_lossy=True
    ),
    "gdal-big.tif": Kind(with_gdal(DEEP, bigtiff="yes"), DEEP),
    "gdal-signed.tif": Kind(with_gdal((DEEP.astype(int) - 32768).astype(np.int16)), DEEP),
    "libtiff-lzw.tif": Kind(with_pillow(COLOUR, compression="tiff_lzw"), COLOUR),
    "libtiff-packbits.tif": Kind(with_pillow(GREY, compression="packbits"), GREY),
    "libtiff-jpeg.tif": Kind(with_pillow(COLOUR, compression="jpeg", quality=98), COLOUR, is_lossy=True),
    "libtiff-fax.tif": Kind(with_pillow(NUCLEI, compression="group4"), NUCLEI.astype(np.uint8) * 255),
    "opencv-float.tif": Kind(lambda path: cv2.imwrite(str(path), FLOATS), NUCLEI.astype(np.uint16) * 65535),
    "ome.ome.tif": Kind(ome_by_hand, DEEP_TWO, ("z00", "z01")),
    "zeiss.czi": Kind(
        lambda path: write_czi(path, "zstd1:ExplicitLevel=2", slices(2)), np.dstack([DEEP, DEEP]),
        ("z00", "z01", "z02"),
    ),
    "leica.lif": Kind(
        lambda path: write_lif(path, slices(2)), np.dstack([DEEP, DEEP]), ("z00", "z01", "z02")
    ),
    "hospital.dcm": Kind(lambda path: write_dicom(path, DEEP), DEEP),
}  # fmt: skip
NEEDED = {".czi": "pylibCZIrw", ".lif": "liffile", ".dcm": "pydicom"}


@dataclass(frozen=True)
class Brought:
    """A file, what an import made of it, and where originals are."""

    path: Path
    kind: Kind
    kept: KeptUploads
    sources: Path

    def data(self) -> list[dict[str, Any]]:
        return [task["data"] for task in self.kept.tasks]


@pytest.fixture(params=KINDS)
def brought(request: pytest.FixtureRequest, tmp_path: Path) -> Brought:
    kind, folder = KINDS[request.param], tmp_path / "in"
    folder.mkdir()
    path = folder / request.param
    if path.suffix in NEEDED:
        pytest.importorskip(NEEDED[path.suffix])
    kind.write(path)
    kept = KeptUploads()
    target = Target(kept, "image", tmp_path / "sources", LIMITS)  # type: ignore[arg-type]
    done = FolderImport(folder, target, Choices(), Present((), "image"), None).run([path])
    assert done.left_out == []
    return Brought(path, kind, kept, tmp_path / "sources")


def is_alike(one: np.ndarray, other: np.ndarray, *, is_lossy: bool) -> bool:
    one, other = one.squeeze(), other.squeeze()
    if not is_lossy:
        return np.array_equal(one, other)
    return one.shape == other.shape and np.abs(one.astype(int) - other).mean() < 3


def test_people_see_it(brought: Brought) -> None:
    files = list(brought.kept.files.values())
    assert len(files) == len(brought.kind.frames)
    for content in files:
        shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        bright = shown.max(axis=2) > 100
        assert shown.dtype == np.uint8
        assert (bright == NUCLEI).mean() > 0.99


def test_the_network_reads_all_of_it(brought: Brought, tmp_path: Path) -> None:
    settings = ImageSettings("http://ls", 10**9, 10**9, 10**9)
    access = ImageAccess("p", sources=brought.sources)
    images = CachedImages(tmp_path / "cache", settings, lambda project_id: access)
    remarks: list[str] = []
    predicted = [picture.pixels for picture in read_pictures(brought.path, LIMITS, Reading(), remarks)]
    assert [data.get("frame", "") for data in brought.data()] == list(brought.kind.frames)
    for number, data in enumerate(brought.data()):
        if "source" in data:
            learnt = np.array(images.open(1, number, data))
        else:  # what people see is all that there is
            name = str(data["image"]).rpartition("/")[2]
            (tmp_path / name).write_bytes(brought.kept.files[name])
            (learnt,) = (one.pixels for one in read_pictures(tmp_path / name, LIMITS, Reading(), remarks))
        assert is_alike(learnt, brought.kind.pixels, is_lossy=brought.kind.is_lossy)
        assert np.array_equal(learnt, predicted[number]), "a folder is predicted as a task is"


def test_its_results_carry_its_name(brought: Brought, tmp_path: Path) -> None:
    model, out, bare = save_bright_model(tmp_path), tmp_path / "out", brought.path.name.partition(".")[0]
    arguments = ["predict", str(brought.path.parent), "--model", str(model), "--out", str(out)]
    answer = CliRunner().invoke(commands, [*arguments, "--no-overlays"])
    assert answer.exit_code == 0, answer.output
    names = ["-".join(filter(None, (bare, frame))) for frame in brought.kind.frames]
    assert sorted(path.name for path in (out / "label_maps").glob("*.png")) == [f"{n}.png" for n in names]
    for name in names:
        label_map, _ = read_label_png(out / "label_maps" / f"{name}.png")
        assert ((label_map == 1) == NUCLEI).mean() > 0.99
        assert tifffile.imread(out / "instances" / f"{name}.tif").max() == 2
    assert f"{2 * len(names)} objects" in answer.output
    # The way out of a project names results as this one does.
    exported = [Path(file_name_of(data, "image", 1)).stem for data in brought.data()]
    assert exported == names


def test_a_geotiff_lies_where_it_lay_also_in_tiles(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    with_gdal(DEEP)(folder / "field.tif")
    model = save_bright_model(tmp_path)
    CliRunner().invoke(commands, ["predict", str(folder), "--model", str(model), "--out", str(out)])
    for name in ("label_maps/field.png", "instances/field.tif"):
        with rasterio.open(out / name) as file:
            assert (file.crs.to_epsg(), tuple(file.transform)[:6]) == (32633, PLACE)

    with open_file(folder / "field.tif", LIMITS) as raster:
        georeference = raster.georeference
        part = raster.frames[0].read(Box(20, 30, 10, 15))
    data = {"georeference": georeference, "tile": "top 20 left 30 of 90 x 60"}
    label_map = (part[:, :, 0] > 0).astype(np.uint8)
    result = Result("tile", "tile.png", label_map, lambda: part, {"id": 1, "data": data})
    write_pngs(tmp_path, [result], SCHEMA)
    write_instances(tmp_path, [result], SCHEMA)
    for name in ("tile.png", "tile.tif"):
        with rasterio.open(tmp_path / name) as file:
            assert file.crs.to_epsg() == 32633
            assert (file.transform.c, file.transform.f) == (500_300, 5_399_800)
