"""Annotations in an export of Label Studio, by the image or the place that their task is of."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import PurePosixPath
from typing import Any

from core.errors import ImageError
from ml_backend.command.import_tasks import KEY, Place
from ml_backend.label_studio.label_config import LabelConfig, find_image_address
from ml_backend.label_studio.paintings import parse_painting
from ml_backend.label_studio.uploads import plain_name, stored_name

SHOWN_PLACES = 5


@dataclass(frozen=True)
class ExportedTask:
    """One task of the file `source`. `image` is its stored name; `key` names the place that an import made it
    of, and `file` that file below its folder, where an import made it."""

    source: str
    image: str
    key: str
    file: str
    annotations: tuple[Mapping[str, Any], ...]

    def read(self, config: LabelConfig, place: Place) -> list[dict[str, Any]]:
        """Its annotations, the oldest first: where several differ the newest counts, as for people.

        Raises `ImageError` where one of their regions cannot be read.
        """
        if self.key != place.key and not (place.is_whole and not place.frame.name):
            raise ImageError(
                f"{self.source}: annotations of Label Studio are of whole images, not of tiles or slices"
            )
        return [
            self._copy(config, place, number, one["result"])
            for number, one in enumerate(sorted(self.annotations, key=_moment), 1)
        ]

    def _copy(self, config: LabelConfig, place: Place, number: int, result: list[Any]) -> dict[str, Any]:
        """Regions as they are, where every one of them can be read."""
        entries = [entry for entry in result if isinstance(entry, dict)]
        painting = parse_painting(entries, config, (place.box.height, place.box.width))
        if painting.findings:
            which = f"annotation {number} of {len(self.annotations)}: " if len(self.annotations) > 1 else ""
            raise ImageError(f"{self.source}: {which}{painting.findings[0].message}")
        meta = {"text": [f"Imported from {self.source}"]}
        return {
            "result": [{"origin": "manual", **entry, "meta": entry.get("meta") or meta} for entry in entries]
        }


class ExportedTasks:
    """The `tasks` of all exports; `images` are the files here, as paths below their folder."""

    def __init__(self, image_key: str, images: Iterable[str]) -> None:
        self._image_key = image_key
        self.tasks: list[ExportedTask] = []
        self._by_key: dict[str, list[ExportedTask]] = defaultdict(list)
        self._by_file: dict[str, list[ExportedTask]] = defaultdict(list)
        self._by_image: dict[str, list[ExportedTask]] = defaultdict(list)
        counts = Counter(stored_name(PurePosixPath(image).name) for image in images)
        self._doubled = {name for name, count in counts.items() if count > 1}
        self._used: set[int] = set()

    def add(self, source: str, document: Any) -> None:
        """Take in one parsed file; raises `ImageError` for one that is no export."""
        rows = document if isinstance(document, list) else [document]
        if not rows or not all(isinstance(row, dict) and isinstance(row.get("data"), dict) for row in rows):
            raise ImageError("it is neither COCO's instances nor an export of Label Studio as JSON")
        for row in rows:
            task = self._parse(source, row)
            self.tasks.append(task)
            self._by_image[task.image].append(task)
            for kept, word in ((self._by_key, task.key), (self._by_file, task.file)):
                if word:
                    kept[word].append(task)

    def find(self, relative: str, place: Place) -> ExportedTask | None:
        """The task of a place: by what an import made of it, by the file's path, else by its name alone.

        Raises `ImageError` where several could be meant.
        """
        image = stored_name(PurePosixPath(relative).name)
        for found in (
            self._by_key.get(place.key, []),
            self._by_file.get(relative, []),
            [task for task in self._by_image.get(image, []) if not task.file or image not in self._doubled],
        ):
            if found:
                self._used |= {id(task) for task in found}
                self._check_alone(found, image)
                return found[0]
        return None

    def unused(self) -> Iterator[tuple[str, str]]:
        """File and image of each task that no image here asked for."""
        for task in self.tasks:
            if id(task) not in self._used:
                yield task.source, task.image

    def _check_alone(self, found: list[ExportedTask], image: str) -> None:
        sources = ", ".join(dict.fromkeys(task.source for task in found))
        if len(found) > 1:
            raise ImageError(
                f"{len(found)} tasks of {sources} are of {found[0].file or image}: keep the one that counts, "
                "and take the others out of the export"
            )
        if not found[0].file and image in self._doubled:
            raise ImageError(
                f"{sources} has a task of {image}, and several images here have that name: rename them, or "
                "import each folder with its own export"
            )

    def _parse(self, source: str, row: Mapping[str, Any]) -> ExportedTask:
        data = row["data"]
        key, file = (word if isinstance(word := data.get(name), str) else "" for name in (KEY, "file"))
        address = file or find_image_address(data, self._image_key)
        image = stored_name(plain_name(str(address or "").partition("?")[0]))
        annotations = row.get("annotations") or []
        if not isinstance(annotations, list):
            raise ImageError(f"the annotations of the task of {image or 'no image'} are no list")
        kept = [one for one in annotations if isinstance(one, dict) and not one.get("was_cancelled")]
        spoken = tuple(one for one in kept if isinstance(one.get("result"), list))
        return ExportedTask(source, image, key, file, spoken)


def _moment(annotation: Mapping[str, Any]) -> float:
    """When it was changed last, in Unix seconds; 0 where that is not said, so that the file's order stays."""
    text = str(annotation.get("updated_at") or annotation.get("created_at") or "")
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
