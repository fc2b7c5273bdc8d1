"""The images below a folder: what is read, what is an image that is not, and what cannot be looked at.

Nothing that people may take for an image of theirs is passed over in silence.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ml_backend.command.folder_of_images import IMPORTED, NOT_UPLOADED, UPLOADED
from ml_backend.errors import ServiceError

READ = UPLOADED | IMPORTED
IMAGE_ENDINGS = READ | NOT_UPLOADED
"""What is opened: read, or left out with a reason that its content gives."""

FURTHER = (
    "arw bif cr2 cr3 dib dm3 dm4 dng dv ets exr fit fits flex heif hdr ico ims j2k jpx jxl mha mhd mrc mrxs "
    "nef nhdr nii nrrd oib oif oir orf pbm pcx pgm pnm ppm psd qoi r3d raf rw2 tga vms vsi xcf zvi"
)
FURTHER_ENDINGS = frozenset(f".{ending}" for ending in FURTHER.split())
"""Of images that no reader here knows; some begin like a TIFF and hold a small picture first."""

ZARR = ".zarr"
NO_READER = "files of this kind ({}) are not read: save it as TIFF, OME-TIFF or PNG in another program"
LOST_LINK = "it is a link to a file that is not there; get its content first, or remove it"
FOLDER_LINK = "it is a link to a folder, which is not followed: name that folder itself"
NO_NAME = "its name is no text in UTF-8, which Label Studio needs: rename it"


@dataclass(frozen=True)
class FoundFiles:
    """Images in the order of their names, how many other files lie beside them, and what is left out, why."""

    images: tuple[Path, ...]
    n_others: int = 0
    left_out: tuple[tuple[str, str], ...] = ()


def find_files(folder: Path, without: Path | None = None) -> FoundFiles:
    """Every image below a folder, but for what is hidden or below `without`; raises where there is none."""
    passed_by = without.absolute() if without is not None else None
    images, left_out, n_others = [], [], 0
    for path, problem in sorted(_walk(folder)):
        if passed_by is not None and (passed_by == path.absolute() or passed_by in path.absolute().parents):
            continue
        problem = problem or _find_problem(path)
        if problem:
            left_out.append((name_of(path, folder), problem))
        elif path.suffix.lower() in IMAGE_ENDINGS:
            images.append(path)
        else:
            n_others += 1
    if not images and not left_out:
        raise ServiceError(f"no images in {folder}; looked for {', '.join(sorted(READ))}")
    return FoundFiles(tuple(images), n_others, tuple(left_out))


def name_of(path: Path, folder: Path) -> str:
    """A file's name below a folder, in a form that can be printed and stored."""
    return path.relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode()


def _walk(folder: Path) -> Iterator[tuple[Path, str]]:
    """Files that are not hidden, and why a folder or a link was not gone into."""
    troubles: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=troubles.append):
        here = Path(place)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in [name for name in folders if name.lower().endswith(ZARR)]:
            yield here / name, NO_READER.format(ZARR)
            folders.remove(name)
        yield from ((here / name, FOLDER_LINK) for name in folders if (here / name).is_symlink())
        for name in files:
            path = here / name
            is_lost = path.is_symlink() and not path.exists()
            if not name.startswith(".") and (is_lost or path.is_file()):
                yield path, LOST_LINK if is_lost and path.suffix.lower() in IMAGE_ENDINGS else ""
    for trouble in troubles:
        yield Path(str(trouble.filename)), f"the folder cannot be read: {trouble.strerror}"


def _find_problem(path: Path) -> str:
    """Why an image is not even opened."""
    ending = path.suffix.lower()
    if path.name.lower().endswith(".nii.gz") or ending in FURTHER_ENDINGS:
        return NO_READER.format(ending)
    if ending in IMAGE_ENDINGS:
        try:
            path.as_posix().encode("utf-8")
        except UnicodeEncodeError:
            return NO_NAME
    return ""
