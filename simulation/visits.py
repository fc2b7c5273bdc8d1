"""Where the simulated annotator goes, what it did there, and how that becomes truth and files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.painting import Box, BrushRegion, Painting, filled_box
from core.schema import LabelSchema
from core.truth.agreement import combine_annotators
from core.truth.label_map import SentMask, build_label_map
from simulation.annotator import ShownMask, Work
from simulation.brush import Effort


@dataclass(frozen=True)
class Place:
    """Where to annotate next. `shown` is the pre-annotation to correct there; None: paint from nothing."""

    image: str
    box: Box
    shown: tuple[ShownMask, ...] | None = None


@dataclass(frozen=True)
class Visit:
    """Regions and answers of one place. `shown` are the model's masks that were corrected, if any.

    Visits with `shown` are annotations of their own; the others of an image add up to one annotation.
    """

    image: str
    regions: tuple[BrushRegion, ...]
    reviewed: tuple[Box, ...]
    objects: tuple[int, ...]
    n_units: int
    effort: Effort
    shown: dict[str, SentMask]

    @classmethod
    def of(cls, place: Place, work: Work) -> Visit:
        shown = {mask.region_id: _cut(mask) for mask in place.shown or ()}
        return cls(place.image, work.regions, work.reviewed, work.objects, work.n_units, work.effort, shown)


def to_label_map(visits: Sequence[Visit], shape: tuple[int, int], schema: LabelSchema) -> NDArray[np.uint8]:
    """What all visits of one image teach."""
    painted = [visit for visit in visits if not visit.reviewed]
    paintings = [Painting(shape, tuple(region for visit in painted for region in visit.regions))]
    maps = [build_label_map(painting, schema).label_map for painting in paintings]
    for visit in visits:
        if visit.reviewed:
            painting = Painting(shape, visit.regions, visit.reviewed)
            maps.append(build_label_map(painting, schema, visit.shown).label_map)
    return combine_annotators(maps)[0]


def _cut(shown: ShownMask) -> SentMask:
    """A mask as it was sent: cut to its box, as small on disk."""
    box = filled_box(shown.mask)
    height, width = shown.mask.shape
    return SentMask(shown.class_index, box.top, box.left, shown.mask[box.slices], (height, width))


def save_visits(path: Path, visits: Sequence[Visit]) -> None:
    """Write visits as plain arrays with a JSON description; the file appears whole or not at all."""
    arrays: dict[str, NDArray[Any]] = {}
    records = [_to_record(visit, f"{number}", arrays) for number, visit in enumerate(visits)]
    arrays["visits"] = np.frombuffer(json.dumps(records).encode(), np.uint8)
    unfinished = path.with_name(f".{path.name}")
    with unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # its stub takes allow_pickle for a key
    unfinished.replace(path)


def load_visits(path: Path) -> list[Visit]:
    """Read what `save_visits` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        records = json.loads(arrays["visits"].tobytes())
        return [_from_record(record, f"{number}", arrays) for number, record in enumerate(records)]


def _to_record(visit: Visit, key: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    regions = []
    for number, region in enumerate(visit.regions):
        arrays[f"{key}-region-{number}"] = region.alpha
        regions.append([region.region_id, region.class_index, region.origin, region.top, region.left])
    shown = []
    for number, (region_id, mask) in enumerate(visit.shown.items()):
        arrays[f"{key}-shown-{number}"] = mask.mask
        shown.append([region_id, mask.class_index, mask.top, mask.left, mask.image_shape])
    return {
        "image": visit.image,
        "regions": regions,
        "reviewed": [asdict(box) for box in visit.reviewed],
        "objects": visit.objects,
        "n_units": visit.n_units,
        "effort": asdict(visit.effort),
        "shown": shown,
    }


def _from_record(record: dict[str, Any], key: str, arrays: Any) -> Visit:
    regions = tuple(
        BrushRegion(region_id, class_index, origin, top, left, arrays[f"{key}-region-{number}"])
        for number, (region_id, class_index, origin, top, left) in enumerate(record["regions"])
    )
    shown = {
        region_id: SentMask(class_index, top, left, arrays[f"{key}-shown-{number}"], tuple(shape))
        for number, (region_id, class_index, top, left, shape) in enumerate(record["shown"])
    }
    return Visit(
        image=record["image"],
        regions=regions,
        reviewed=tuple(Box(**box) for box in record["reviewed"]),
        objects=tuple(record["objects"]),
        n_units=record["n_units"],
        effort=Effort(**record["effort"]),
        shown=shown,
    )
