"""Files: weights, label maps, pictures. Everything is written beside its place and then renamed into it.

::

    data_dir/projects/<id>-<created>/models/<version>/      weights and their record, never changed
                                     truth/<task>-<seq>.npz  label maps: all truth, training, hold-out
                                     pictures/<version>/     PNGs, made when somebody asks
                                     sources/                originals that `brushloop import` kept
                                     scratch/                unfinished files: `processes.scratch`
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ml_backend.processes.process_identity import name_scratch
from ml_backend.processes.scratch import (
    make_folder,
    new_scratch,
    put,
    read_clock,
    remove,
    scratch_file,
    sweep_scratch,
    sync,
)
from ml_backend.storage.kept_maps import sweep_maps
from ml_backend.storage.label_map_files import SUFFIX, read_map, write_maps

log = logging.getLogger(__name__)

ORPHAN_LIFE_S = 900.0
"""A file that no row names after this long belongs to nobody: rows are written right after their file."""

DISPLACED = ".displaced-"
"""How the name of a file goes on that lay in the place of a folder."""


class Artifacts:
    """The files of one project, below its own folder."""

    def __init__(self, data_dir: Path, folder: str) -> None:
        self.root = data_dir / "projects" / folder
        self.models = self.root / "models"
        self.truth = self.root / "truth"
        self.pictures = self.root / "pictures"
        self.scratch = self.root / "scratch"
        self.maps = self.root / "maps"
        self.sources = self.root / "sources"

    def new_scratch(self) -> Path:
        """A path that nobody uses, on the same file system as its later place."""
        self._clear_way()
        return new_scratch(self.scratch)

    def save_truth(self, task_id: int, seq: int, maps: Sequence[NDArray[np.uint8]]) -> str:
        """Store three `(H, W)` in one file; returns the name under which `load_truth` finds it."""
        name = f"{task_id}-{seq}{SUFFIX}"
        self._clear_way()
        make_folder(self.truth)
        with scratch_file(self.scratch) as scratch:
            with scratch.open("wb") as file:
                write_maps(file, maps)
                _sync_open(file)
            put(scratch, self.truth / name)
        return name

    def load_truth(self, name: str) -> NDArray[np.uint8]:
        """`(H, W)` uint8: all that is painted. Raises `MachineError` where it is missing or damaged."""
        return read_map(self.truth / name)

    def save_picture(self, model_version: str, name: str, png: bytes) -> None:
        folder = self.pictures / model_version
        self._clear_way()
        make_folder(folder)
        with scratch_file(self.scratch) as scratch:
            with scratch.open("wb") as file:
                file.write(png)
                _sync_open(file)
            put(scratch, folder / name)

    def publish(self, scratch: Path, model_version: str) -> None:
        """Make the folder of a trained model final; its bytes are on the disk before its name is."""
        final = self.models / model_version
        if not scratch.exists() and final.exists():
            return  # an earlier try came so far
        for file in scratch.iterdir():
            sync(file)
        make_folder(self.models)
        if final.exists():
            # Of a round that the database does not know, or it had another number: nobody can be using it.
            remove(final.rename(final.with_name(f".{name_scratch()}")))
        put(scratch, final)
        sync(self.models)

    def discard(self, scratch: Path) -> None:
        """Drop what a training wrote and nobody published, also where it was killed while it wrote."""
        for path in (scratch, *self.scratch.glob(f".{scratch.name}.*")):
            remove(path)

    def sweep(
        self,
        truth_names: Collection[str],
        model_versions: Collection[str],
        last_round: int,
        dropped: Collection[str] = (),
    ) -> None:
        """Remove label maps, models and scratch that no row names; for the holder of the round's lease.

        How old a file is, is told by the file system's own clock. Models of rounds behind `last_round` stay:
        an older database was brought back, and it has never known them. Versions that were `dropped` go at
        once: their rows say that nobody writes them any more.
        """
        sweep_scratch(self.scratch, ORPHAN_LIFE_S)
        now = read_clock(self.scratch)
        for folder, keep in (
            (self.truth, truth_names),
            (self.models, model_versions),
            (self.pictures, model_versions),
        ):
            for path in _entries(folder):
                is_unknown = folder == self.models and _round_of(path.name) > last_round
                is_old = path.name in dropped or _age_s(path, now) > ORPHAN_LIFE_S
                if path.name not in keep and not is_unknown and is_old:
                    remove(path)
        remove(self.root / "base")  # earlier versions could adapt base weights to a project

    def remove(self) -> None:
        """Drop everything of the project."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _clear_way(self) -> None:
        """Move a file aside that has the name of the project's folder, or of the one above it.

        It is kept: not all that belongs into the folder can be made again, and nobody knows what it is.
        """
        for folder in (self.root.parent, self.root):
            if folder.exists() and not folder.is_dir():
                aside = folder.with_name(f"{folder.name}{DISPLACED}{name_scratch()}")
                log.warning("move_aside file=%s to=%s", folder, aside.name)
                folder.rename(aside)


def sweep_projects(data_dir: Path) -> None:
    """Remove what ended processes left unfinished in the folders of all projects."""
    for folder in _entries(data_dir / "projects"):
        project = Artifacts(data_dir, folder.name)
        sweep_scratch(project.scratch, ORPHAN_LIFE_S)
        sweep_maps(project.maps)


def _sync_open(file: IO[bytes]) -> None:
    """Have the bytes on the disk before the name is: a power cut between leaves an empty file otherwise."""
    file.flush()
    os.fsync(file.fileno())


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _round_of(model_version: str) -> int:
    """The number of the round that made a version, 0 for a name of another kind."""
    number = model_version.partition("-")[0].removeprefix("r")
    return int(number) if number.isdigit() else 0


def _age_s(path: Path, now: float) -> float:
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
