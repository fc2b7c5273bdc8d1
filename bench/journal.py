"""What a long benchmark has finished so far, one JSON line per measurement, so that it can go on later."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import core

Key = Mapping[str, Any]
"""Plain JSON values that name a measurement and everything its result depends on."""


class Journal:
    """Measurements by key; `resume` reads those that an earlier run left in `path`."""

    def __init__(self, path: Path | None, resume: bool = False) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        if path is None:
            return
        kept = _read(path) if resume and path.exists() else []
        path.write_text("".join(f"{line}\n" for _, _, line in kept), encoding="utf-8")
        self._known = {name: value for name, value, _ in kept}

    def measure(self, key: Key, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The finished measurement of `key`, or what `work` gives now; says on the console what it does."""
        name = json.dumps(dict(key), sort_keys=True)
        if name not in self._known:
            label = " ".join(f"{word}" for word in key.values() if not isinstance(word, dict))
            print(f"measure {label}", flush=True)
            # Once through JSON, so that a resumed run sees exactly what the first one saw.
            self._known[name] = json.loads(json.dumps(work()))
            self._append(name)
        found: dict[str, Any] = self._known[name]
        return found

    def _append(self, name: str) -> None:
        if self._path is None:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": json.loads(name), "value": self._known[name]}) + "\n")


def _read(path: Path) -> list[tuple[str, Any, str]]:
    """Name, value and line of each whole entry."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # the last line of a run that was killed while it wrote
            continue
        found.append((json.dumps(entry["key"], sort_keys=True), entry["value"], line))
    return found


@lru_cache(maxsize=1)
def learner_version() -> str:
    """First digits of a hash over the core's source and base weights: what our own results depend on."""
    digest = hashlib.sha256()
    folder = Path(core.__file__).parent
    for path in sorted([*folder.rglob("*.py"), *folder.glob("base/*")]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]
