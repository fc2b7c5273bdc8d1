"""Masks of other tools, found by the names of their images, as annotations that say where they come from."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from core.asking.suggestion import SuggestedMask
from core.errors import ImageError
from core.painting import Box
from ingest.coco import CocoFile, is_coco, load_json, parse_coco
from ingest.frames import Frame
from ingest.mask_files import NO_PICKLES, open_mask, read_numbers
from ingest.masks import FoundObject, MaskContent, MaskRules, cut_out, read_values, share_regions
from ml_backend.command.import_files import bare_name
from ml_backend.command.import_tasks import Place
from ml_backend.label_studio.image_files import DECODER_ERRORS
from ml_backend.label_studio.label_config import LabelConfig, find_image_address
from ml_backend.label_studio.paintings import parse_painting
from ml_backend.label_studio.results import to_annotation
from ml_backend.label_studio.uploads import plain_name, stored_name

MASK_ENDINGS = frozenset({".png", ".tif", ".tiff", ".npy", ".npz"})
PICKLES = frozenset({".npy", ".npz"})
OTHER_IMAGES = frozenset({".jpg", ".jpeg", ".bmp", ".gif", ".webp"})
SUFFIXES = re.compile(r"[-_. ](cp_masks?|masks?|labels?|seg|gt|instances?|labelIds)$", re.IGNORECASE)
"""What tools add to the name of an image to name its mask."""

SHOWN_NAMES = 5

Read = Callable[[], dict[str, Any] | None]


class MaskFolder:
    """The masks of a folder, or of one file of COCO's or Label Studio's; `left_out` says what is not used."""

    def __init__(
        self,
        source: Path,
        rules: MaskRules,
        config: LabelConfig,
        images: Iterable[str],
        axes: str | None = None,
        *,
        beside_images: bool = False,
    ) -> None:
        self._rules, self._config, self._axes = rules, config, axes
        self._pickles: list[tuple[Path, str]] = []
        self._root = source if source.is_dir() else source.parent
        self.left_out: list[tuple[str, str]] = []
        self._files: dict[str, list[Path]] = defaultdict(list)
        self._coco: list[tuple[str, CocoFile]] = []
        self._exported: dict[str, tuple[str, list[Any]]] = {}
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            is_one = is_mask_name(path) or path.suffix == ".json" or not beside_images
            if path.is_file() and is_one and not path.name.startswith("."):
                self._sort(path)
        counts: dict[str, int] = defaultdict(int)
        for image in images:
            counts[bare_name(PurePosixPath(image).name)] += 1
        self._doubled = {name for name, count in counts.items() if count > 1}
        self._used: set[Path] = set()
        self._used_images: set[tuple[str, str]] = set()

    def annotation(self, relative: str, place: Place) -> dict[str, Any] | None:
        """The annotation of one place, None without a mask; raises `ImageError` for one that does not fit."""
        sources = self._find_sources(relative, place)
        if len(sources) > 1:
            raise ImageError(f"there are several masks of it: {', '.join(name for name, _ in sources)}")
        return sources[0][1]() if sources else None

    def expect(self, relative: str, place: Place) -> None:
        """Note that a place is there, so that its mask has an image, though nobody needs it any more."""
        with suppress(ImageError):
            self._find_sources(relative, place)

    def _find_sources(self, relative: str, place: Place) -> list[tuple[str, Read]]:
        """Everything that says something of a place, by the name of its file, with what reads it."""
        found: list[tuple[str, Read]] = []
        image = stored_name(PurePosixPath(relative).name)
        if image in self._exported:
            self._used_images.add(("", image))
            name, annotations = self._exported[image]
            found.append((name, partial(self._copy, name, annotations, place)))
        path = self._find(relative, place)
        if path is not None:
            found.append((self._name(path), partial(self._draw_file, path, place)))
        is_only = bare_name(PurePosixPath(relative).name) not in self._doubled
        for name, coco in self._coco:
            key = coco.find(relative, is_only=is_only)
            if key is not None:
                self._used_images.add((name, key))
                found.append((name, partial(self._draw_coco, coco, key, place, name)))
        return found

    def _draw_file(self, path: Path, place: Place) -> dict[str, Any]:
        return self._to_annotation(self._read_file(path, place), place, f"Imported from {self._name(path)}")

    def _draw_coco(self, coco: CocoFile, key: str, place: Place, name: str) -> dict[str, Any]:
        if place.frame.name:
            raise ImageError(f"{name} knows no slices, and this is {place.frame.name} of a stack")
        _check_size(coco.sizes[key], place, name)
        return self._to_annotation(self._read_coco(coco, key, place, name), place, f"Imported from {name}")

    def unused(self) -> list[tuple[str, str]]:
        """Masks that no image asked for, once all have."""
        paths = {path for paths in self._files.values() for path in paths} - self._used
        lost = [(self._name(path), NO_PICKLES) for path, stem in self._pickles if stem not in self._files]
        bare = [(self._name(path), "no image has its name") for path in sorted(paths)]
        return [*lost, *bare, *self._unused_entries()]

    def _unused_entries(self) -> Iterator[tuple[str, str]]:
        """For each file of several images, those that are not here."""
        held = [(name, key, (name, key)) for name, coco in self._coco for key in coco.sizes]
        held += [(name, image, ("", image)) for image, (name, _) in self._exported.items()]
        missing: dict[str, list[str]] = defaultdict(list)
        for name, image, entry in held:
            if entry not in self._used_images:
                missing[name].append(image or "one without an address")
        for name, images in missing.items():
            more = " and more" if len(images) > SHOWN_NAMES else ""
            yield (
                name,
                f"no image here has the name of {len(images)} in it: {', '.join(images[:SHOWN_NAMES])}{more}",
            )

    def _sort(self, path: Path) -> None:
        """Note what a file is for; one that is of no use is listed."""
        ending = path.suffix.lower()
        if ending in MASK_ENDINGS:
            stem = path.relative_to(self._root).as_posix()[: -len(ending)].removesuffix(".ome")
            if ending in PICKLES:
                self._pickles.append((path, SUFFIXES.sub("", stem)))
            else:
                self._files[SUFFIXES.sub("", stem)].append(path)
        elif ending == ".json":
            try:
                self._sort_json(path)
            except ImageError as error:
                self.left_out.append((self._name(path), str(error)))
        elif ending in OTHER_IMAGES:
            self.left_out.append(
                (self._name(path), "a mask is a PNG or a TIFF: other formats change its numbers")
            )

    def _sort_json(self, path: Path) -> None:
        document = load_json(path)
        if is_coco(document):
            self._coco.append((self._name(path), parse_coco(document)))
            return
        tasks = document if isinstance(document, list) else [document]
        if not tasks or not all(isinstance(t, dict) and isinstance(t.get("data"), dict) for t in tasks):
            raise ImageError("it is neither COCO's instances nor an export of Label Studio as JSON")
        for task in tasks:
            address = task["data"].get("file") or find_image_address(task["data"], self._config.image_key)
            image = stored_name(plain_name(str(address or "").partition("?")[0]))
            self._exported[image] = (self._name(path), task.get("annotations") or [])

    def _find(self, relative: str, place: Place) -> Path | None:
        """By the name of the place, then of the file, in its folder; then by the bare name."""
        image = PurePosixPath(relative)
        bare = bare_name(image.name)
        folder = "" if str(image.parent) == "." else f"{image.parent}/"
        names = [f"{folder}{place.name}", f"{folder}{bare}", f"{folder}{image.stem}"]
        if bare not in self._doubled:
            names += [place.name, bare, image.stem]
        for name in names:
            paths = self._files.get(name, [])
            if len(paths) > 1:
                listed = ", ".join(self._name(path) for path in paths)
                self._used |= set(paths)
                raise ImageError(f"there are several masks of it: {listed}")
            if paths:
                self._used.add(paths[0])
                return paths[0]
        return None

    def _read_file(self, path: Path, place: Place) -> MaskContent:
        name = self._name(path)
        try:
            with open_mask(path, self._axes) as frames:
                frame = _find_frame(frames, path, place)
                _check_size(frame.shape[:2], place, "")
                return read_values(read_numbers(frame, place.box), self._rules, self._config.schema)
        except DECODER_ERRORS as error:
            raise ImageError(f"{name}: it cannot be decoded: {str(error)[:200]}") from None
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from None

    def _read_coco(self, coco: CocoFile, key: str, place: Place, name: str) -> MaskContent:
        try:
            whole = coco.read(key, self._config.schema, partial=self._rules.partial)
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from None
        return cut_content(whole, place.box)

    def _to_annotation(self, content: MaskContent, place: Place, remark: str) -> dict[str, Any]:
        """Everything said at once where the setup can, so that the picture stays in sight."""
        schema = self._config.schema
        background = schema.background_index
        is_reviewed = self._config.review_tag is not None and content.is_complete
        objects = list(share_regions(content.objects, content.shape))
        is_painted = background is not None and schema.classes[background].is_painted
        if not is_reviewed and background is not None and is_painted and content.ground.any():
            objects.append(cut_out(content.ground, background))
        masks = [_to_suggested(one) for one in objects]
        return to_annotation(masks, self._config, content.shape, place.key, remark, is_reviewed=is_reviewed)

    def _copy(self, name: str, annotations: list[Any], place: Place) -> dict[str, Any] | None:
        """Regions of an export as they are, where every one of them can be read."""
        results = [
            one.get("result") for one in annotations if isinstance(one, dict) and not one.get("was_cancelled")
        ]
        if not place.is_whole or place.frame.name:
            raise ImageError(
                f"{name}: annotations of Label Studio are of whole images, not of tiles or slices"
            )
        if not results or not isinstance(results[0], list):
            return None
        entries = [entry for entry in results[0] if isinstance(entry, dict)]
        painting = parse_painting(entries, self._config, (place.box.height, place.box.width))
        if painting.findings:
            raise ImageError(f"{name}: {painting.findings[0].message}")
        meta = {"text": [f"Imported from {name}"]}
        return {
            "result": [{"origin": "manual", **entry, "meta": entry.get("meta") or meta} for entry in entries]
        }

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def is_mask_name(path: Path) -> bool:
    """Whether a file's name says that it is the mask of another: `cells_cp_masks.tif`."""
    stem = path.name[: -len(path.suffix)].removesuffix(".ome") if path.suffix else path.name
    return path.suffix.lower() in MASK_ENDINGS and SUFFIXES.search(stem) is not None


def parse_labels(text: str) -> Mapping[int, str]:
    """`0=Background,1=Nucleus` as a mapping; raises `ImageError`.

    >>> parse_labels("0=Background, 1=Nucleus")
    {0: 'Background', 1: 'Nucleus'}
    """
    labels: dict[int, str] = {}
    for part in text.split(","):
        value, equals, name = part.strip().partition("=")
        if not equals or not name.strip() or not re.fullmatch(r"-?[0-9]{1,10}", value.strip()):
            raise ImageError(
                f"{part.strip()!r} names no value: write VALUE=CLASS, as in 0=Background,1=Nucleus"
            )
        labels[int(value)] = name.strip()
    return labels


def cut_content(content: MaskContent, box: Box) -> MaskContent:
    """What a mask says inside a box."""
    if (box.height, box.width) == content.shape:
        return content
    cut = []
    for one in content.objects:
        whole = np.zeros(content.shape, bool)
        whole[one.top : one.top + one.mask.shape[0], one.left : one.left + one.mask.shape[1]] = one.mask
        part = whole[box.slices]
        if part.any():
            cut.append(cut_out(part, one.class_index))
    return MaskContent((box.height, box.width), tuple(cut), content.ground[box.slices])


def _find_frame(frames: Sequence[Frame], path: Path, place: Place) -> Frame:
    """The picture of a mask that belongs to a place: by its name, or the only one of its file."""
    wanted = place.frame.name
    for frame in frames:
        if frame.name == wanted or (len(frames) == 1 and path.stem.startswith(place.name)):
            return frame
    if wanted:
        raise ImageError(f"it has {len(frames)} pictures and none is called {wanted}, as in its image")
    raise ImageError(f"it has {len(frames)} pictures, its image has one")


def _check_size(size: tuple[int, ...], place: Place, name: str) -> None:
    height, width = place.frame.shape[:2]
    if tuple(size) != (height, width):
        start = f"{name}: " if name else ""
        raise ImageError(f"{start}it has {size[1]} x {size[0]} pixels, its image {width} x {height}")


def _to_suggested(one: FoundObject) -> SuggestedMask:
    return SuggestedMask(one.class_index, one.mask, one.top, one.left, 1.0)
