"""The images right in a folder: which of them can be uploaded, and why the others cannot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.errors import ImageError
from ml_backend.config import Settings
from ml_backend.errors import ServiceError
from ml_backend.label_studio.image_files import find_hidden, read_size
from ml_backend.label_studio.image_frame import ImageLimits

UPLOADED = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
"""Endings of images that Label Studio takes and browsers show; one of another kind spoils a whole upload."""

_IMPORTED = "tif tiff svs ndpi scn lsm stk qptiff btf tf8 avif gif jpe jfif czi nd2 lif dcm dicom"
IMPORTED = frozenset(f".{ending}" for ending in _IMPORTED.split())
"""Endings of what `brushloop setup --images` leaves to `brushloop import`, whatever is in it."""

NOT_UPLOADED = IMPORTED | {".heic", ".jp2", ".svg"}
"""Endings of images that Label Studio does not take as uploads, or that no browser shows."""


@dataclass(frozen=True)
class FolderImages:
    """What can be uploaded, by name; what is to be imported; and what is left out, each with its reason."""

    usable: tuple[Path, ...]
    left_out: tuple[tuple[Path, str], ...]
    to_import: tuple[Path, ...] = ()


def sort_images(folder: Path, settings: Settings, *, imports_rest: bool = False) -> FolderImages:
    """Look at each image of a folder; raises `ServiceError` where none of them can be brought in.

    By the rule of `brushloop import`, what browsers show just as the network reads it is uploaded as it is.
    The rest is left out, or with `imports_rest` left to that command.
    """
    limits = ImageLimits(settings.max_image_mb * 1_000_000, settings.max_image_megapixels * 1_000_000)
    usable: list[Path] = []
    left_out: list[tuple[Path, str]] = []
    to_import: list[Path] = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        if path.suffix.lower() not in UPLOADED | NOT_UPLOADED:
            continue
        problem, can_be_imported = _find_problem(path, limits)
        if not problem:
            usable.append(path)
        elif can_be_imported and imports_rest:
            to_import.append(path)
        else:
            left_out.append((path, problem))
    if not usable and not to_import:
        raise ServiceError(_explain_none(folder, left_out))
    return FolderImages(tuple(usable), tuple(left_out), tuple(to_import))


def _find_problem(path: Path, limits: ImageLimits) -> tuple[str, bool]:
    """Why an image cannot be uploaded, empty when it can; and whether an import may take it."""
    ending = path.suffix.lower()
    if ending in NOT_UPLOADED:
        return (
            f"Label Studio takes no {ending} uploads that a browser shows; save it as PNG, or import it",
            ending in IMPORTED,
        )
    try:
        read_size(path, limits)
        hidden = find_hidden(path)
    except ImageError as error:
        return str(error), False
    return (
        f"{hidden}, and browsers do not show that as it is learnt from; import it" if hidden else ""
    ), True


def _explain_none(folder: Path, left_out: list[tuple[Path, str]]) -> str:
    counted = f"these can be uploaded: {', '.join(sorted(UPLOADED))}"
    if not left_out:
        return f"no images in {folder}; {counted}"
    path, problem = left_out[0]
    return f"no image in {folder} can be uploaded ({path.name}: {problem}); {counted}"
