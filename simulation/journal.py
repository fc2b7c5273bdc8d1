"""Finished rounds of a study, one JSON line each: what was killed goes on from them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from simulation.brush import Effort

FILE = "rounds.jsonl"


@dataclass(frozen=True)
class RoundRecord:
    """One finished round of one arm. `units` is what it cost of the budget of objects; `new` see `Arm`."""

    arm: str
    seed: int
    round: int
    objects: int
    units: int
    effort: Effort
    dice: float
    promoted: bool
    fingerprint: str | None
    new: tuple[str, ...]
    images: tuple[str, ...]

    @property
    def key(self) -> tuple[str, int, int]:
        return self.arm, self.seed, self.round

    def to_line(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> RoundRecord:
        changed = {
            "effort": Effort(**record["effort"]),
            "new": tuple(record["new"]),
            "images": tuple(record["images"]),
        }
        return cls(**{**record, **changed})


class Journal:
    """The finished rounds in a folder; a line that was cut off by a kill is dropped."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self.records: dict[tuple[str, int, int], RoundRecord] = {}
        whole = self._path.read_bytes() if self._path.exists() else b""
        end = whole.rfind(b"\n") + 1
        for line in whole[:end].splitlines():
            record = RoundRecord.from_record(json.loads(line))
            self.records[record.key] = record
        # Else the next line would continue the one that a kill cut off.
        if end < len(whole):
            with self._path.open("r+b") as file:
                file.truncate(end)

    def finished(self, arm: str, seed: int) -> list[RoundRecord]:
        """Rounds of one arm from the first on, up to the first that is missing."""
        found: list[RoundRecord] = []
        while (key := (arm, seed, len(found))) in self.records:
            found.append(self.records[key])
        return found

    def append(self, record: RoundRecord) -> None:
        """Add a line, safely on disk before this returns."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(record.to_line())
            file.flush()
            os.fsync(file.fileno())
        self.records[record.key] = record
