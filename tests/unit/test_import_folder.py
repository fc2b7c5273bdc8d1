"""`brushloop import`: what becomes of a folder of files, over a Label Studio that keeps what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from kept_uploads import LIMITS, KeptUploads, noise
from PIL import Image

from core.errors import ImageError
from ml_backend.command.found_files import find_files
from ml_backend.command.import_folder import FolderImport, Imported, Present, Target, check_image_key
from ml_backend.command.import_tasks import Choices
from ml_backend.errors import LabelStudioUnavailableError, ServiceError
from ml_backend.label_studio.image_files import read_image
from ml_backend.label_studio.image_frame import ImageLimits
from ml_backend.label_studio.images import CachedImages, ImageAccess, ImageSettings


@pytest.fixture
def kept() -> KeptUploads:
    return KeptUploads()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


def bring(folder: Path, kept: KeptUploads, limits: ImageLimits = LIMITS, **choices: Any) -> Imported:
    target = Target(kept, "image", folder.parent / "sources", limits)  # type: ignore[arg-type]
    present = Present(kept.summaries(), "image")
    return FolderImport(folder, target, Choices(**choices), present, None).run(find_files(folder).images)


def data_of(kept: KeptUploads) -> dict[str, dict[str, Any]]:
    return {task["data"]["name"]: task["data"] for task in kept.tasks}


def read_source(folder: Path, data: Mapping[str, Any]) -> np.ndarray:
    """As the network does."""
    settings = ImageSettings("http://ls", 10**9, 10**9, 10**9)
    access = ImageAccess("p", sources=folder.parent / "sources")
    images = CachedImages(folder.parent / "cache", settings, lambda project_id: access)
    pixels = np.array(images.open(1, 1, data))
    assert images.shape(1, 1, data) == pixels.shape[:2]
    return pixels


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp"])
def test_what_browsers_show_is_uploaded_as_it_is(folder: Path, kept: KeptUploads, ending: str) -> None:
    path = folder / f"cell.{ending}"
    Image.fromarray(noise(20, 30, 3, dtype=np.uint8)).save(path)
    bring(folder, kept)
    assert list(kept.files.values()) == [path.read_bytes()]
    assert "source" not in kept.tasks[0]["data"]


@pytest.mark.parametrize("ending", ["avif", "gif", "tif"])
def test_eight_bits_that_browsers_do_not_show_become_a_png_of_the_same_pixels(
    folder: Path, kept: KeptUploads, ending: str
) -> None:
    path = folder / f"cell.{ending}"
    Image.fromarray(noise(20, 30, 3, dtype=np.uint8)).save(path)
    bring(folder, kept)
    assert np.array_equal(kept.shown(path.name)[:, :, ::-1], read_image(path, LIMITS))
    assert "source" not in kept.tasks[0]["data"]


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "zstd", "packbits", "lzma"])
@pytest.mark.parametrize("tile", [None, (32, 32)])
@pytest.mark.parametrize("n_channels", [1, 2, 3, 4, 6])
def test_the_network_reads_every_bit_of_every_channel(
    folder: Path, kept: KeptUploads, compression: str | None, tile: tuple[int, int] | None, n_channels: int
) -> None:
    pixels = noise(70, 90, n_channels)
    planes = np.moveaxis(pixels, 2, 0) if n_channels > 1 else pixels[:, :, 0]
    tifffile.imwrite(
        folder / "a.tif",
        planes,
        photometric="minisblack",
        compression=compression,
        tile=tile,
        metadata={"axes": "CYX" if n_channels > 1 else "YX"},
        rowsperstrip=None if tile else 33,
    )
    done = bring(folder, kept)
    assert done.left_out == []
    assert np.array_equal(read_source(folder, kept.tasks[0]["data"]), pixels)
    assert kept.shown("a.tif").shape[:2] == (70, 90)
    assert kept.shown("a.tif").dtype == np.uint8


def test_jpeg_in_a_pyramid_of_tiles_is_read_at_its_full_size(folder: Path, kept: KeptUploads) -> None:
    smooth = cv2.GaussianBlur(noise(300, 260, 3, dtype=np.uint8), (0, 0), 9)
    with tifffile.TiffWriter(folder / "slide.ome.tif") as file:
        options: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64), "compression": "jpeg"}
        file.write(smooth, subifds=1, **options)
        file.write(smooth[::2, ::2], subfiletype=1, **options)
    bring(folder, kept)
    shown = kept.shown("slide.ome.tif")[:, :, ::-1]
    assert np.abs(shown.astype(int) - smooth).mean() < 3


def test_red_green_blue_and_near_infrared_keep_four_channels(folder: Path, kept: KeptUploads) -> None:
    pixels = noise(40, 50, 4, dtype=np.uint8)
    tifffile.imwrite(folder / "field.tif", pixels, photometric="rgb", extrasamples=["unspecified"])
    bring(folder, kept)
    assert np.array_equal(read_source(folder, kept.tasks[0]["data"]), pixels)
    assert np.corrcoef(kept.shown("field.tif")[:, :, 2].ravel(), pixels[:, :, 0].ravel())[0, 1] > 0.99


def test_alpha_is_no_channel(folder: Path, kept: KeptUploads) -> None:
    pixels = noise(40, 50, 4)
    tifffile.imwrite(folder / "a.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])
    bring(folder, kept)
    assert np.array_equal(read_source(folder, kept.tasks[0]["data"]), pixels[:, :, :3])


@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_slices_and_moments_become_tasks_whose_names_say_so(
    folder: Path, kept: KeptUploads, kind: str
) -> None:
    stack = noise(2, 3, 2, 30, 40)
    options: dict[str, Any] = {"ome": {"ome": True}, "imagej": {"imagej": True}}[kind]
    tifffile.imwrite(folder / "film.tif", stack, metadata={"axes": "TZCYX"}, **options)
    bring(folder, kept)
    found = data_of(kept)
    assert sorted(found) == [f"film-t{t:02d}-z{z:02d}" for t in range(2) for z in range(3)]
    assert np.array_equal(read_source(folder, found["film-t01-z02"]), np.moveaxis(stack[1, 2], 0, 2))


def test_pages_without_axes_are_asked_about_and_not_guessed(folder: Path, kept: KeptUploads) -> None:
    pages = noise(3, 30, 40)
    tifffile.imwrite(folder / "pages.tif", pages, photometric="minisblack", metadata=None)
    done = bring(folder, kept)
    assert kept.tasks == []
    assert done.left_out[0][0] == "pages.tif"
    assert "--axes ZYX" in done.left_out[0][1]
    bring(folder, kept, axes="zyx")
    assert np.array_equal(read_source(folder, data_of(kept)["pages-z01"])[:, :, 0], pages[1])


def test_pages_that_are_channels_become_one_task(folder: Path, kept: KeptUploads) -> None:
    pages = noise(3, 30, 40)
    tifffile.imwrite(folder / "pages.tif", pages, photometric="minisblack", metadata=None)
    bring(folder, kept, axes="CYX")
    assert np.array_equal(read_source(folder, kept.tasks[0]["data"]), np.moveaxis(pages, 0, 2))


@pytest.mark.parametrize(
    ("values", "dtype", "words", "stored"),
    [
        ([-1.0, 0.0, 1.0], np.float32, "0 to 65535 stands for -1 to 1", [0, 32768, 65535]),
        ([0.0, np.nan, 2.0], np.float64, "0 to 65535 stands for 0 to 2", [0, 0, 65535]),
        ([0, 5, 65535], np.uint32, None, [0, 5, 65535]),
        ([0, 1, 100_000], np.uint32, "0 to 65535 stands for 0 to 100000", [0, 1, 65535]),
        ([-1000, 0, 3000], np.int16, "stored is the value plus 32768", [31768, 32768, 35768]),
    ],
)
def test_other_numbers_are_scaled_and_the_task_says_how(
    folder: Path, kept: KeptUploads, values: list[float], dtype: Any, words: str | None, stored: list[int]
) -> None:
    tifffile.imwrite(folder / "a.tif", np.array([values] * 3, dtype))
    bring(folder, kept)
    data = kept.tasks[0]["data"]
    assert data.get("scaling") == words
    assert read_source(folder, data)[0, :, 0].tolist() == stored


def test_a_given_range_holds_for_all_files(folder: Path, kept: KeptUploads) -> None:
    tifffile.imwrite(folder / "a.tif", np.array([[0.0, 0.5, 3.0]], np.float32))
    bring(folder, kept, number_range=(0.0, 1.0))
    assert read_source(folder, kept.tasks[0]["data"])[0, :, 0].tolist() == [0, 32768, 65535]


def test_sixteen_bit_pngs_are_seen_with_stretched_contrast(folder: Path, kept: KeptUploads) -> None:
    pixels = noise(60, 60, high=400)
    cv2.imwrite(str(folder / "dim.png"), pixels)
    bring(folder, kept)
    assert kept.shown("dim.png").max() == 255
    assert np.array_equal(read_source(folder, kept.tasks[0]["data"])[:, :, 0], pixels)


def test_large_images_are_cut_into_tiles_that_keep_their_place(folder: Path, kept: KeptUploads) -> None:
    pixels = noise(500, 300)
    tifffile.imwrite(folder / "slide.tif", pixels, tile=(64, 64))
    bring(folder, kept, tile_px=256)
    found = data_of(kept)
    assert sorted(found) == [f"slide-y{y:05d}-x{x:05d}" for y in (0, 256) for x in (0, 256)]
    data = found["slide-y00256-x00256"]
    assert data["tile"] == "top 256 left 256 of 300 x 500"
    assert np.array_equal(read_source(folder, data)[:, :, 0], pixels[256:, 256:])


def test_what_is_too_large_is_left_out_with_the_remedy(folder: Path, kept: KeptUploads) -> None:
    tifffile.imwrite(folder / "slide.tif", np.zeros((300, 300), np.uint8))
    done = bring(folder, kept, ImageLimits(10**9, 50_000))
    assert "--tile 2048" in done.left_out[0][1]


@pytest.mark.parametrize("n_calls", range(5))
def test_a_run_that_was_killed_goes_on_and_nothing_is_doubled(
    folder: Path, kept: KeptUploads, monkeypatch: pytest.MonkeyPatch, n_calls: int
) -> None:
    monkeypatch.setattr("ml_backend.command.import_folder.MOST_WAITING", 2)
    for number in range(5):
        tifffile.imwrite(folder / f"{number}.tif", noise(20, 20 + number))
    kept.dies_after = n_calls
    with pytest.raises(LabelStudioUnavailableError):
        bring(folder, kept)
    kept.dies_after = None
    bring(folder, kept)
    assert sorted(data_of(kept)) == ["0", "1", "2", "3", "4"]
    assert len(kept.tasks) == len(kept.files) == 5
    assert bring(folder, kept).n_there == 5
    assert len(kept.tasks) == 5


def test_equal_files_come_in_once_and_that_is_said(folder: Path, kept: KeptUploads) -> None:
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(folder / name, noise(20, 20))
    done = bring(folder, kept)
    assert len(kept.tasks) == 1
    assert done.remarks == [("b.tif", "its content is that of a.tif, which is brought in once")]


def test_files_that_setup_uploaded_before_are_there_already(folder: Path, kept: KeptUploads) -> None:
    Image.fromarray(noise(20, 30, dtype=np.uint8)).save(folder / "my cell.png")
    kept.tasks = [{"data": {"image": "/data/upload/1/0a1b2c3d-my_cell.png"}}]
    assert bring(folder, kept).n_there == 1
    assert len(kept.tasks) == 1


def test_two_channels_are_green_and_magenta_unless_told_otherwise(folder: Path, kept: KeptUploads) -> None:
    planes = np.zeros((2, 40, 40), np.uint16)
    planes[0, :, :20], planes[1, :, 20:] = 900, 500
    tifffile.imwrite(folder / "a.tif", planes, photometric="minisblack", metadata={"axes": "CYX"})
    bring(folder, kept)
    assert kept.shown("a.tif")[0, [0, 39]].tolist() == [[0, 255, 0], [255, 0, 255]]
    fresh = KeptUploads()
    bring(folder, fresh, colours=((255, 0, 0),))
    assert fresh.shown("a.tif")[0, [0, 39], ::-1].tolist() == [[255, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("key", ["source", "file.path", "pages[0]"])
def test_a_setup_that_calls_its_image_as_import_calls_its_own_is_refused(key: str) -> None:
    with pytest.raises(ServiceError, match="call it"):
        check_image_key(key, ("file",))


def test_a_source_that_nobody_kept_is_refused_and_no_name_leads_out(folder: Path) -> None:
    for name in ("../../secret.tif", "0" * 32 + ".png", "0" * 32 + ".tif"):
        with pytest.raises(ImageError, match=r"import"):
            read_source(folder, {"image": "/data/upload/1/a.png", "source": f"brushloop-source:{name}"})


def test_a_palette_becomes_the_colours_that_people_know(folder: Path, kept: KeptUploads) -> None:
    colours = np.zeros((3, 256), np.uint16)
    colours[:, 1], colours[:, 2] = (65535, 0, 0), (0, 65535, 257)
    tifffile.imwrite(folder / "a.tif", np.array([[1, 2]], np.uint8), photometric="palette", colormap=colours)
    bring(folder, kept)
    assert kept.shown("a.tif")[0, :, ::-1].tolist() == [[255, 0, 0], [0, 255, 1]]


def test_where_a_file_says_that_there_is_no_data_its_numbers_scale_nothing(
    folder: Path, kept: KeptUploads
) -> None:
    values = np.array([[-9999.0, 1.0, 3.0]], np.float32)
    tifffile.imwrite(folder / "a.tif", values, extratags=[(42113, 2, 0, "-9999", True)])
    bring(folder, kept)
    assert kept.tasks[0]["data"]["scaling"] == "0 to 65535 stands for 1 to 3"
    assert read_source(folder, kept.tasks[0]["data"])[0, :, 0].tolist() == [0, 0, 65535]


def write_ome_set(folder: Path, planes: np.ndarray) -> None:
    """One OME-TIFF over several files, each of which names all of them, as microscopes write it."""
    n_files, height, width = planes.shape
    parts = "".join(
        f'<TiffData FirstC="{n}" IFD="0" PlaneCount="1"><UUID FileName="c{n}.ome.tif">urn:uuid:{n}</UUID>'
        "</TiffData>"
        for n in range(n_files)
    )
    channels = "".join(f'<Channel ID="Channel:0:{n}" SamplesPerPixel="1"/>' for n in range(n_files))
    for number, plane in enumerate(planes):
        text = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{number}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
            f'Type="uint16" SizeX="{width}" SizeY="{height}" SizeZ="1" SizeC="{n_files}" SizeT="1">'
            f"{channels}{parts}</Pixels></Image></OME>"
        )
        tifffile.imwrite(folder / f"c{number}.ome.tif", plane, description=text, metadata=None)


def test_a_set_of_files_that_name_one_another_comes_in_once(folder: Path, kept: KeptUploads) -> None:
    planes = noise(3, 30, 40)
    write_ome_set(folder, planes)
    done = bring(folder, kept)
    assert [task["data"]["file"] for task in kept.tasks] == ["c0.ome.tif"]
    assert np.array_equal(read_source(folder, kept.tasks[0]["data"]), np.moveaxis(planes, 0, 2))
    others = [name for name, remark in done.remarks if "part of c0.ome.tif" in remark]
    assert others == ["c1.ome.tif", "c2.ome.tif"]


def test_a_set_of_which_a_file_is_missing_is_left_out(folder: Path, kept: KeptUploads) -> None:
    write_ome_set(folder, noise(3, 30, 40))
    (folder / "c1.ome.tif").unlink()
    done = bring(folder, kept)
    assert kept.tasks == []
    assert {problem for _, problem in done.left_out} == {
        "some of its pages are in other files, which are not there"
    }


def test_points_in_names_of_files_tell_their_tasks_apart(folder: Path, kept: KeptUploads) -> None:
    for number in range(2):
        tifffile.imwrite(folder / f"plate.{number}.ome.tif", noise(20, 20 + number))
    bring(folder, kept)
    assert sorted(data_of(kept)) == ["plate.0", "plate.1"]
