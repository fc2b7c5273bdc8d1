"""Masks of other tools, found by the names of their images, as annotations that say where they come from."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from core.asking.suggestion import SuggestedMask
from core.errors import ImageError
from ingest.coco import CocoFile, is_coco, load_json, parse_coco
from ingest.frames import Frame
from ingest.mask_files import NO_PICKLES, open_mask, read_numbers
from ingest.masks import (
    FoundObject,
    MaskContent,
    MaskRules,
    cut_content,
    cut_out,
    read_values,
    share_regions,
)
from ml_backend.command.exported_tasks import ExportedTask, ExportedTasks
from ml_backend.command.import_files import bare_name
from ml_backend.command.import_tasks import Place
from ml_backend.label_studio.image_files import DECODER_ERRORS
from ml_backend.label_studio.label_config import LabelConfig
from ml_backend.label_studio.results import to_annotation

MASK_ENDINGS = frozenset({".png", ".tif", ".tiff", ".npy", ".npz"})
PICKLES = frozenset({".npy", ".npz"})
OTHER_IMAGES = frozenset({".jpg", ".jpeg", ".bmp", ".gif", ".webp"})
SUFFIXES = re.compile(r"[-_. ](cp_masks?|masks?|labels?|seg|gt|instances?|labelIds)$", re.IGNORECASE)
"""What tools add to the name of an image to name its mask."""

ARE_READ = "save masks as PNG or TIFF, or as JSON in the form of COCO or of a Label Studio export"

SHOWN_NAMES = 5

Read = Callable[[], list[dict[str, Any]]]


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
        images = tuple(images)
        self._exported = ExportedTasks(config.image_key, images)
        self.remarks: list[tuple[str, str]] = []
        self._counts = Counter(bare_name(PurePosixPath(image).name) for image in images)
        self._doubled = {name for name, count in self._counts.items() if count > 1}
        self._used: set[Path] = set()
        self._used_images: set[tuple[str, str]] = set()
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            is_one = is_mask_name(path) or path.suffix.lower() == ".json" or not beside_images
            if path.is_file() and is_one and not path.name.startswith("."):
                self._sort(path)
        if not (self._files or self._pickles or self._coco or self._exported.tasks or self.left_out):
            self.left_out.append((source.name, f"there is no mask in it: {ARE_READ}"))

    def annotations(self, relative: str, place: Place) -> list[dict[str, Any]]:
        """The annotations of one place, none without a mask; raises `ImageError` where one does not fit."""
        sources = self._find_sources(relative, place)
        if len(sources) > 1:
            raise ImageError(
                f"there are several masks of it: {', '.join(name for name, _ in sources)}; keep one of them"
            )
        return sources[0][1]() if sources else []

    def expect(self, relative: str, place: Place) -> None:
        """Note that a place is there, so that its mask has an image, though nobody needs it any more."""
        with suppress(ImageError):
            self._find_sources(relative, place)

    def _find_sources(self, relative: str, place: Place) -> list[tuple[str, Read]]:
        """Everything that says something of a place, by the name of its file, with what reads it."""
        found: list[tuple[str, Read]] = []
        task = self._exported.find(relative, place)
        if task is not None:
            found.append((task.source, partial(self._copy, task, relative, place)))
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

    def _copy(self, task: ExportedTask, relative: str, place: Place) -> list[dict[str, Any]]:
        annotations = task.read(self._config, place)
        if len(annotations) > 1:
            remark = (
                f"{task.source} has {len(annotations)} annotations of it: all came in, and where they differ "
                "the newest counts; delete in Label Studio those that are wrong"
            )
            self.remarks.append((relative, remark))
        return annotations

    def _draw_file(self, path: Path, place: Place) -> list[dict[str, Any]]:
        content = self._read_file(path, place)
        return [self._to_annotation(content, place, f"Imported from {self._name(path)}")]

    def _draw_coco(self, coco: CocoFile, key: str, place: Place, name: str) -> list[dict[str, Any]]:
        if place.frame.name:
            raise ImageError(f"{name} knows no slices, and this is {place.frame.name} of a stack")
        _check_size(coco.sizes[key], place, name)
        content = self._read_coco(coco, key, place, name)
        return [self._to_annotation(content, place, f"Imported from {name}")]

    def unused(self) -> list[tuple[str, str]]:
        """Masks that no image asked for, once all have."""
        paths = {path for paths in self._files.values() for path in paths} - self._used
        lost = [(self._name(path), NO_PICKLES) for path, stem in self._pickles if stem not in self._files]
        bare = [(self._name(path), self._why_unused(path)) for path in sorted(paths)]
        return [*lost, *bare, *self._unused_entries()]

    def _why_unused(self, path: Path) -> str:
        bare = PurePosixPath(self._stem(path)).name
        if bare in self._doubled:
            return f"several images are called {bare}: put it into the folder of its image"
        if bare in self._counts:
            return "its image has another mask, or is not brought in"
        like = next((name for name in self._counts if name.casefold() == bare.casefold()), None)
        return f"no image has its name{f', but one is called {like}: write it alike' if like else ''}"

    def _unused_entries(self) -> Iterator[tuple[str, str]]:
        """For each file of several images, those that are not here."""
        held = [(name, key) for name, coco in self._coco for key in coco.sizes]
        missing: dict[str, list[str]] = defaultdict(list)
        for name, image in [entry for entry in held if entry not in self._used_images]:
            missing[name].append(image)
        for name, image in self._exported.unused():
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
            if ending in PICKLES:
                self._pickles.append((path, self._stem(path)))
            else:
                self._files[self._stem(path)].append(path)
        elif ending == ".json":
            try:
                self._sort_json(path)
            except ImageError as error:
                self.left_out.append((self._name(path), str(error)))
        elif ending in OTHER_IMAGES:
            self.left_out.append(
                (self._name(path), "a mask is a PNG or a TIFF: other formats change its numbers")
            )
        elif PurePosixPath(self._stem(path)).name in self._counts:
            self.left_out.append(
                (self._name(path), f"it has the name of an image and is no mask that is read: {ARE_READ}")
            )

    def _sort_json(self, path: Path) -> None:
        document = load_json(path)
        if is_coco(document):
            self._coco.append((self._name(path), parse_coco(document)))
            return
        self._exported.add(self._name(path), document)

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

    def _stem(self, path: Path) -> str:
        """The path of the image that a mask's name speaks of, without its ending."""
        whole = path.relative_to(self._root).as_posix()
        return SUFFIXES.sub("", whole[: len(whole) - len(path.suffix)].removesuffix(".ome"))

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
        if labels.setdefault(int(value), name.strip()) != name.strip():
            raise ImageError(
                f"the value {int(value)} is given two classes, {labels[int(value)]} and {name.strip()}"
            )
    return labels


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
