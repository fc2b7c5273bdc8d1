"""The images right in a folder: which of them can be uploaded, and why the others cannot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.errors import ImageError
from ml_backend.config import Settings
from ml_backend.errors import ServiceError
from ml_backend.label_studio.image_files import read_size
from ml_backend.label_studio.image_frame import ImageLimits

UPLOADED = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
"""Endings of images that Label Studio takes and browsers show; one of another kind spoils a whole upload."""

IMPORTED = frozenset(
    {".avif", ".czi", ".dcm", ".dicom", ".gif", ".lif", ".lsm", ".nd2", ".ndpi", ".svs", ".tif", ".tiff"}
)
"""Endings of what `brushloop setup --images` leaves to `brushloop import`."""

NOT_UPLOADED = frozenset({".avif", ".czi", ".gif", ".heic", ".jp2", ".nd2", ".svg", ".svs", ".tif", ".tiff"})
"""Endings of images that Label Studio does not take as uploads, or that no browser shows."""


@dataclass(frozen=True)
class FolderImages:
    """What can be uploaded, by name, and what is left out, each with its reason."""

    usable: tuple[Path, ...]
    left_out: tuple[tuple[Path, str], ...]


def sort_images(folder: Path, settings: Settings) -> FolderImages:
    """Look at each image of a folder; raises `ServiceError` where none of them can be uploaded."""
    limits = ImageLimits(settings.max_image_mb * 1_000_000, settings.max_image_megapixels * 1_000_000)
    usable: list[Path] = []
    left_out: list[tuple[Path, str]] = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        problem = _find_problem(path, limits)
        if problem == "":
            usable.append(path)
        elif problem is not None:
            left_out.append((path, problem))
    if not usable:
        raise ServiceError(_explain_none(folder, left_out))
    return FolderImages(tuple(usable), tuple(left_out))


def _find_problem(path: Path, limits: ImageLimits) -> str | None:
    """Why an image cannot be uploaded; empty when it can, None for a file that is no image."""
    ending = path.suffix.lower()
    if ending in NOT_UPLOADED:
        return f"Label Studio takes no {ending} uploads that a browser shows; save it as PNG, or import it"
    if ending not in UPLOADED:
        return None
    try:
        read_size(path, limits)
    except ImageError as error:
        return str(error)
    return ""


def _explain_none(folder: Path, left_out: list[tuple[Path, str]]) -> str:
    counted = f"these can be uploaded: {', '.join(sorted(UPLOADED))}"
    if not left_out:
        return f"no images in {folder}; {counted}"
    path, problem = left_out[0]
    return f"no image in {folder} can be uploaded ({path.name}: {problem}); {counted}"
