"""The classes of a project, in the order of their indices, and what each one means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from core.errors import SchemaError

IGNORE_INDEX = 255
"""Value of an unlabelled pixel in a label map; 0 is a real class."""

MAX_CLASSES = 254
"""Indices 0..253: 255 is taken by `IGNORE_INDEX`, and 254 is kept free."""

Role = Literal["object", "background"]


@dataclass(frozen=True)
class LabelClass:
    """One class. `autofill`: holes that one brush region encloses belong to that region.

    `is_painted`: there is a brush for it. Background without one is what reviewed areas show.
    """

    name: str
    role: Role = "object"
    autofill: bool = False
    is_painted: bool = True


@dataclass(frozen=True)
class LabelSchema:
    """Ordered classes of a project; the position of a class is its index in every label map.

    Raises
    ------
    SchemaError
        No class, more than `MAX_CLASSES`, two classes of one name, or two backgrounds.

    Examples
    --------
    >>> schema = LabelSchema.of("Background", "Nucleus")
    >>> schema.background_index, schema.object_indices, schema.index_of("Nucleus")
    (0, (1,), 1)
    """

    classes: tuple[LabelClass, ...]

    def __post_init__(self) -> None:
        names = [label.name for label in self.classes]
        if not 1 <= len(names) <= MAX_CLASSES:
            raise SchemaError(f"a project needs 1 to {MAX_CLASSES} classes, this one has {len(names)}")
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise SchemaError(f"two classes have the same name: {', '.join(doubled)}")
        backgrounds = [label.name for label in self.classes if label.role == "background"]
        if len(backgrounds) > 1:
            raise SchemaError(f"only one class can be the background, found {', '.join(backgrounds)}")

    @classmethod
    def of(cls, *names: str) -> LabelSchema:
        """Build a schema from names alone; `Background`, in any case, is the background."""
        return cls(
            tuple(
                LabelClass(name, "background" if name.casefold() == "background" else "object")
                for name in names
            )
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.classes)

    @property
    def background_index(self) -> int | None:
        """Index of the painted Background class, or None where the project has none."""
        for index, label in enumerate(self.classes):
            if label.role == "background":
                return index
        return None

    @property
    def object_indices(self) -> tuple[int, ...]:
        return tuple(i for i, label in enumerate(self.classes) if label.role == "object")

    def index_of(self, name: str) -> int | None:
        """Index of a class by its exact name, or None."""
        return self.names.index(name) if name in self.names else None

    def __len__(self) -> int:
        return len(self.classes)

    def to_records(self) -> list[dict[str, Any]]:
        """Plain JSON form, for checkpoints and the database."""
        return [
            {"name": c.name, "role": c.role, "autofill": c.autofill}
            | ({} if c.is_painted else {"is_painted": False})
            for c in self.classes
        ]

    @classmethod
    def from_records(cls, records: Sequence[dict[str, Any]]) -> LabelSchema:
        """Read what `to_records` wrote."""
        return cls(
            tuple(
                LabelClass(
                    r["name"], r["role"], bool(r.get("autofill", False)), bool(r.get("is_painted", True))
                )
                for r in records
            )
        )
