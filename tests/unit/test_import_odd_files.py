"""Files that programs show in different ways: what people see is what the network reads, or it is said."""

from __future__ import annotations

import io
import os
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from kept_uploads import LIMITS, KeptUploads, noise
from PIL import Image

from core.painting import Box
from ingest.frames import frame_of
from ingest.turning import turn, turn_frame
from ml_backend.command.folder_of_images import IMPORTED, NOT_UPLOADED, UPLOADED, sort_images
from ml_backend.command.found_files import READ, find_files
from ml_backend.command.import_folder import FolderImport, Imported, Present, Target
from ml_backend.command.import_tasks import Choices
from ml_backend.config import Settings
from ml_backend.errors import ServiceError
from ml_backend.label_studio.image_files import read_image

PIXELS = noise(40, 50, 3, dtype=np.uint8)
GREY = PIXELS[:, :, 0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


def bring(folder: Path, kept: KeptUploads) -> Imported:
    target = Target(kept, "image", folder.parent / "sources", LIMITS)  # type: ignore[arg-type]
    return FolderImport(folder, target, Choices(), Present((), "image"), None).run(find_files(folder).images)


@pytest.mark.parametrize("orientation", range(10))
def test_a_box_of_a_turned_frame_is_that_of_the_turned_picture(orientation: int) -> None:
    whole = turn(PIXELS, orientation)
    frame = turn_frame(frame_of(PIXELS), orientation)
    assert frame.shape == whole.shape
    assert np.array_equal(frame.read(Box(3, 5, 20, 30)), whole[3:23, 5:35])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_alike_wherever_it_is_read(folder: Path, orientation: int) -> None:
    tifffile.imwrite(folder / "a.tif", PIXELS, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    kept = KeptUploads()
    done = bring(folder, kept)
    assert np.array_equal(kept.shown("a.tif")[:, :, ::-1], read_image(folder / "a.tif", LIMITS))
    assert [f"orientation {orientation}" in remark for _, remark in done.remarks] == [True] * (
        orientation > 1
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_photograph_is_predicted_as_browsers_turn_it(folder: Path, ending: str, orientation: int) -> None:
    smooth = cv2.GaussianBlur(PIXELS, (0, 0), 5)
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(smooth).save(folder / f"a.{ending}", exif=exif, quality=95)
    kept = KeptUploads()
    bring(folder, kept)
    (uploaded,) = kept.files.values()
    assert uploaded == (folder / f"a.{ending}").read_bytes(), "the browser turns it by itself"
    read = read_image(folder / f"a.{ending}", LIMITS)
    assert np.abs(read.astype(int) - turn(smooth, orientation)).mean() < 5


TRANSPARENT = {
    "rgba.png": (Image.fromarray(np.dstack([PIXELS, GREY])), {}),
    "grey-alpha.png": (Image.fromarray(np.dstack([GREY, GREY])), {}),
    "palette.png": (Image.fromarray(PIXELS).quantize(16), {"transparency": 3}),
    "palette-steps.png": (Image.fromarray(PIXELS).quantize(16), {"transparency": bytes([0, 128, 255])}),
    "colour-key.png": (Image.fromarray(PIXELS), {"transparency": (1, 2, 3)}),
    "rgba.webp": (Image.fromarray(np.dstack([PIXELS, GREY])), {"lossless": True, "exact": True}),
}


@pytest.mark.parametrize("name", TRANSPARENT)
def test_what_is_transparent_is_shown_as_the_network_reads_it(folder: Path, name: str) -> None:
    image, options = TRANSPARENT[name]
    image.save(folder / name, **options)
    kept = KeptUploads()
    bring(folder, kept)
    shown, read = kept.shown(name), read_image(folder / name, LIMITS)
    assert shown.shape[2:] in ((), (3,)), "nothing of it is transparent"
    assert np.array_equal(shown if shown.ndim == 2 else shown[:, :, ::-1], read.squeeze())


def test_an_opaque_alpha_channel_changes_nothing(folder: Path) -> None:
    Image.fromarray(np.dstack([PIXELS, np.full_like(GREY, 255)])).save(folder / "a.png")
    kept = KeptUploads()
    bring(folder, kept)
    assert list(kept.files.values()) == [(folder / "a.png").read_bytes()]


@pytest.mark.parametrize("ending", ["png", "webp", "gif"])
def test_of_a_film_the_first_picture_is_shown_and_learnt_from(folder: Path, ending: str) -> None:
    path = folder / f"a.{ending}"
    others = [Image.fromarray(np.roll(PIXELS, n, axis=0)) for n in (5, 9)]
    options = {"lossless": True} if ending == "webp" else {}
    Image.fromarray(PIXELS).save(path, save_all=True, append_images=others, **options)
    kept = KeptUploads()
    done = bring(folder, kept)
    assert done.remarks == [(path.name, "2 further pictures in it were left out: only the first is taken")]
    assert np.array_equal(kept.shown(path.name)[:, :, ::-1], read_image(path, LIMITS))
    (uploaded,) = kept.files.values()
    assert getattr(Image.open(io.BytesIO(uploaded)), "n_frames", 1) == 1


def test_nothing_that_may_be_an_image_is_passed_over_in_silence(folder: Path) -> None:
    for name in ("good.png", "notes.txt", ".hidden.png", "raw.dng", "brain.nii.gz", "plate.mrxs"):
        (folder / name).write_bytes(b"")
    (folder / "cells.zarr" / "0").mkdir(parents=True)
    (folder / "cells.zarr" / "0" / "0.0").write_bytes(b"")
    (folder / "gone.tif").symlink_to(folder / "annex" / "object")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "again").symlink_to(folder)
    found = find_files(folder)
    assert [path.name for path in found.images] == ["good.png"]
    assert found.n_others == 1
    said = dict(found.left_out)
    assert sorted(said) == [
        "again", "brain.nii.gz", "cells.zarr", "gone.tif", "loop.png", "plate.mrxs", "raw.dng",
    ]  # fmt: skip
    assert all("save it as TIFF" in said[name] for name in ("brain.nii.gz", "cells.zarr", "raw.dng"))
    assert "link to a file that is not there" in said["gone.tif"]
    assert "name that folder itself" in said["again"]


def test_a_name_that_is_no_text_is_left_out_and_can_be_printed(folder: Path) -> None:
    try:
        (folder / os.fsdecode(b"cell\xff.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes no such name")
    ((name, problem),) = find_files(folder).left_out
    assert (name, "rename it" in problem) == ("cell\\udcff.png", True)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to this user")
def test_a_folder_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "closed").mkdir(mode=0)
    assert find_files(folder).left_out == (("closed", "the folder cannot be read: Permission denied"),)


def test_a_folder_without_images_is_refused(folder: Path) -> None:
    (folder / "notes.txt").write_text("hello")
    with pytest.raises(ServiceError, match="no images"):
        find_files(folder)


@pytest.mark.parametrize(
    "name",
    ["ünï😀 名.png", 'a∕b:c*?"<>|.png', "back\\slash.png", "new\nline.png", "名" * 80 + ".png", "A.PNG"],
)
def test_any_name_that_a_file_can_have_comes_in(folder: Path, name: str) -> None:
    Image.fromarray(GREY).save(folder / name, format="PNG")
    kept = KeptUploads()
    assert bring(folder, kept).left_out == []
    assert [task["data"]["file"] for task in kept.tasks] == [name]


def test_names_that_differ_in_case_or_folder_alone_are_different_files(folder: Path) -> None:
    (folder / "Sub").mkdir()
    for number, name in enumerate(("a.png", "A.png", "Sub/a.png")):
        Image.fromarray(np.roll(GREY, number, axis=0)).save(folder / name)
    kept = KeptUploads()
    assert bring(folder, kept).n_tasks == len(list(folder.rglob("*.png")))


def save_film(path: Path) -> None:
    Image.fromarray(PIXELS).save(path, save_all=True, append_images=[Image.fromarray(PIXELS[::-1])])


ALIKE = {
    "grey.png": (Image.fromarray(GREY).save, True),
    "colour.jpg": (Image.fromarray(PIXELS).save, True),
    "opaque.png": (Image.fromarray(np.dstack([PIXELS, np.full_like(GREY, 255)])).save, True),
    "film.png": (save_film, False),
    "film.webp": (save_film, False),
    "film.gif": (save_film, False),
    "deep.png": (lambda path: cv2.imwrite(str(path), GREY.astype(np.uint16) * 200), False),
    "deep-colour.png": (lambda path: cv2.imwrite(str(path), PIXELS.astype(np.uint16) * 200), False),
    "tiff-inside.png": (lambda path: Image.fromarray(GREY).save(path, format="TIFF"), False),
    "a.jfif": (lambda path: Image.fromarray(PIXELS).save(path, format="JPEG"), False),
    **{name: (partial(image.save, **options), False) for name, (image, options) in TRANSPARENT.items()},
}


@pytest.mark.parametrize("name", ALIKE)
def test_setup_uploads_as_it_is_what_import_does_and_leaves_it_the_rest(folder: Path, name: str) -> None:
    save, is_plain = ALIKE[name]
    save(folder / name)
    kept = KeptUploads()
    assert bring(folder, kept).left_out == []
    (uploaded,) = kept.files.values()
    found = sort_images(folder, Settings(), imports_rest=True)
    assert (uploaded == (folder / name).read_bytes()) == is_plain
    assert [path.name for path in found.usable] == [name] * is_plain
    assert [path.name for path in found.to_import] == [name] * (not is_plain)


def test_setup_without_an_import_says_what_browsers_would_not_show(folder: Path) -> None:
    Image.fromarray(GREY).save(folder / "a.png")
    TRANSPARENT["rgba.png"][0].save(folder / "b.png")
    ((path, problem),) = sort_images(folder, Settings()).left_out
    assert path.name == "b.png"
    assert "transparent in places" in problem
    assert "import it" in problem


def test_what_setup_and_import_read_is_one_list() -> None:
    assert READ == UPLOADED | IMPORTED
    assert IMPORTED < NOT_UPLOADED
    assert not UPLOADED & NOT_UPLOADED
