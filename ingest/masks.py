"""What the numbers of a mask mean: classes, objects, background, or nothing that is known."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from core.errors import ImageError
from core.painting import Box, Mask
from core.schema import LabelSchema

FULL_VALUES = (255, 65_535)
"""Often "ignore" and often simply the largest number: beside other values it has to be told."""

MOST_REGIONS = 300
"""Objects beyond this many share regions: the editor gets slow with more."""

SHOWN_VALUES = 8

_NEIGHBOURHOOD = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class FoundObject:
    """`mask` of one class at `top, left`."""

    class_index: int
    top: int
    left: int
    mask: Mask


@dataclass(frozen=True)
class MaskContent:
    """Objects of a mask of `shape`; `ground` is where it says Background, the rest is not known."""

    shape: tuple[int, int]
    objects: tuple[FoundObject, ...]
    ground: Mask

    @property
    def is_complete(self) -> bool:
        """Whether every pixel says something."""
        said = self.ground.copy()
        for one in self.objects:
            said[one.top : one.top + one.mask.shape[0], one.left : one.left + one.mask.shape[1]] |= one.mask
        return bool(said.all())


@dataclass(frozen=True)
class MaskRules:
    """How numbers are read.

    `labels` gives the class of a value; `instances_of` makes each value an object of that class. `ignore` are
    values of which nothing is known. With `partial`, nothing is known where there is no object, either.
    """

    labels: Mapping[int, str] = field(default_factory=dict)
    instances_of: str | None = None
    ignore: frozenset[int] = frozenset()
    partial: bool = False


def read_values(values: NDArray[Any], rules: MaskRules, schema: LabelSchema) -> MaskContent:
    """Read `(H, W)` whole numbers; raises `ImageError` where their meaning would have to be guessed."""
    height, width = values.shape
    present = {int(value) for value in np.unique(values)}
    named = sorted(present - rules.ignore)
    _check_negative([value for value in named if value < 0 and value not in rules.labels])
    unknown = (
        np.isin(values, sorted(rules.ignore)) if rules.ignore & present else np.zeros(values.shape, bool)
    )
    if rules.labels:
        objects, ground = _read_labels(values, named, rules, schema)
    else:
        objects, ground = _read_instances(values, named, rules, schema), values == 0
    if rules.partial and not rules.labels:
        ground = np.zeros_like(ground)
    return MaskContent((height, width), tuple(objects), ground & ~unknown)


def _check_negative(values: Collection[int]) -> None:
    if values:
        raise ImageError(
            f"it holds {_listed(values)}, and no object has a number below 0: say with "
            f"--ignore {min(values)} that nothing is known there"
        )


def find_class(name: str, schema: LabelSchema) -> int:
    """The index of a class by its name in any case; raises `ImageError` where the project has none."""
    exact = schema.index_of(name)
    if exact is not None:
        return exact
    for index, known in enumerate(schema.names):
        if known.casefold() == name.casefold():
            return index
    raise ImageError(f"the project has no class {name!r}, it has {', '.join(schema.names)}")


def share_regions(objects: Iterable[FoundObject], shape: tuple[int, int]) -> tuple[FoundObject, ...]:
    """Objects as they are, or, where there are very many, put together so that no two of one region touch."""
    objects = tuple(objects)
    if len(objects) <= MOST_REGIONS:
        return objects
    groups: dict[int, list[tuple[Mask, Mask]]] = {}
    for one in objects:
        _place(one, groups.setdefault(one.class_index, []), shape)
    return tuple(
        FoundObject(class_index, 0, 0, mask) for class_index, held in groups.items() for mask, _ in held
    )


def _place(one: FoundObject, held: list[tuple[Mask, Mask]], shape: tuple[int, int]) -> None:
    """Put an object into the first region in which it touches nothing; each is kept with its rim."""
    here, rim = _around(one, shape, 0), _around(one, shape, 1)
    free = next((pair for pair in held if not (pair[1][here] & one.mask).any()), None)
    if free is None:
        free = np.zeros(shape, bool), np.zeros(shape, bool)
        held.append(free)
    mask, taken = free
    mask[here] |= one.mask
    spread = np.zeros((rim[0].stop - rim[0].start, rim[1].stop - rim[1].start), np.uint8)
    top, left = here[0].start - rim[0].start, here[1].start - rim[1].start
    spread[top : top + one.mask.shape[0], left : left + one.mask.shape[1]] = one.mask
    taken[rim] |= cv2.dilate(spread, _NEIGHBOURHOOD) > 0


def _around(one: FoundObject, shape: tuple[int, int], margin: int) -> tuple[slice, slice]:
    height, width = one.mask.shape
    return (
        slice(max(0, one.top - margin), min(shape[0], one.top + height + margin)),
        slice(max(0, one.left - margin), min(shape[1], one.left + width + margin)),
    )


def _read_labels(
    values: NDArray[Any], named: Collection[int], rules: MaskRules, schema: LabelSchema
) -> tuple[list[FoundObject], Mask]:
    """One region for each class that the mask shows."""
    unnamed = [value for value in named if value not in rules.labels]
    if unnamed and not rules.partial:
        raise ImageError(
            f"it holds the values {_listed(unnamed)}, which --labels does not name; name or --ignore them"
        )
    indices = {value: find_class(name, schema) for value, name in rules.labels.items()}
    ground, objects = np.zeros(values.shape, bool), []
    for class_index in sorted({indices[value] for value in named if value in indices}):
        mask = np.isin(values, [value for value, index in indices.items() if index == class_index])
        if class_index == schema.background_index:
            ground = mask
        else:
            objects.append(cut_out(mask, class_index))
    return objects, ground


def _read_instances(
    values: NDArray[Any], named: Collection[int], rules: MaskRules, schema: LabelSchema
) -> list[FoundObject]:
    """One object for each value; a mask of one value is read as the class alone."""
    numbers = [value for value in named if value != 0]
    if rules.instances_of is None:
        _check_plain(numbers, schema)
        class_index = schema.object_indices[0]
    else:
        class_index = find_class(rules.instances_of, schema)
    return list(_split(values, numbers, class_index))


def _check_plain(numbers: Collection[int], schema: LabelSchema) -> None:
    """Without rules, a project of one class leaves no doubt, but for a full value beside others."""
    if len(schema.object_indices) != 1:
        raise ImageError(
            f"the project has the classes {', '.join(schema.names)}: say what the values {_listed(numbers)} "
            "mean with --labels 1=NAME,2=NAME, or --instances NAME where each value is an object"
        )
    for full in FULL_VALUES:
        if full in numbers and full - 1 not in numbers and len(numbers) > 1:
            raise ImageError(
                f"it holds {full} beside {_listed([n for n in numbers if n != full])}: say with "
                f"--ignore {full} that nothing is known there, or with --instances NAME that it is an object"
            )


def _split(values: NDArray[Any], numbers: Collection[int], class_index: int) -> Iterator[FoundObject]:
    wanted = np.array(sorted(numbers), values.dtype)
    places = np.searchsorted(wanted, values)
    places[places == len(wanted)] = 0
    compact = (
        np.where(wanted[places] == values, places + 1, 0) if len(wanted) else np.zeros(values.shape, int)
    )
    for number, found in enumerate(find_objects(compact), 1):
        if found is not None:
            rows, columns = found
            yield FoundObject(class_index, rows.start, columns.start, compact[found] == number)


def cut_out(mask: Mask, class_index: int) -> FoundObject:
    """A mask as small as its box."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return FoundObject(class_index, 0, 0, np.zeros((0, 0), bool))
    top, left = int(rows[0]), int(columns[0])
    return FoundObject(class_index, top, left, mask[top : rows[-1] + 1, left : columns[-1] + 1])


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


def _listed(values: Collection[int]) -> str:
    shown = ", ".join(str(value) for value in sorted(values)[:SHOWN_VALUES])
    return f"{shown} and more" if len(values) > SHOWN_VALUES else shown
