"""Label maps on disk: the three maps of a task in one compressed file, which `numpy.load` reads too.

Most of a map says nothing, so that a large one takes thousands of times less than a byte a pixel. Files of
earlier versions hold `(3, H, W)` as they are in memory, and are still read.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from shutil import copyfileobj
from tokenize import TokenError
from typing import IO, Literal
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from core.errors import ImageUnavailableError
from core.network.regular_files import OF_THE_PROCESS, check_regular
from core.schema import IGNORE_INDEX

MapPart = Literal["all", "train", "held_out"]
PARTS: tuple[MapPart, ...] = ("all", "train", "held_out")
"""What the maps say: everything that is painted; what is trained on; what is held out."""

SUFFIX, PLAIN_SUFFIX = ".npz", ".npy"
COMPRESSION_LEVEL = 1
"""Higher levels take three times as long and save little: maps are runs of equal values."""
BAND_BYTES = 1 << 20

IN_MEMORY_PX = 4_000_000
"""Larger maps are opened from an unpacked file without a name, whose pages the kernel may take back."""

_DAMAGE: tuple[type[Exception], ...] = (
    *(OSError, ValueError, EOFError, KeyError, RuntimeError),
    *(SyntaxError, TokenError, zlib.error, struct.error, BadZipFile),
)
"""What numpy and zipfile raise over files that are cut off, garbage or of another kind."""


def write_maps(file: IO[bytes], maps: Sequence[NDArray[np.uint8]]) -> None:
    """Write three `(H, W)` uint8 in the order of `PARTS`; no second copy of any is made."""
    with ZipFile(file, "w", ZIP_DEFLATED, compresslevel=COMPRESSION_LEVEL) as archive:
        for part, label_map in zip(PARTS, maps, strict=True):
            with archive.open(f"{part}.npy", "w", force_zip64=True) as member:
                head = {"descr": label_map.dtype.str, "fortran_order": False, "shape": label_map.shape}
                np.lib.format.write_array_header_1_0(member, head)  # type: ignore[no-untyped-call]
                rows = max(1, BAND_BYTES // max(1, label_map.shape[1]))
                for top in range(0, label_map.shape[0], rows):
                    member.write(np.ascontiguousarray(label_map[top : top + rows]).data)


def read_shape(path: Path) -> tuple[int, int]:
    """Height and width in pixels, without unpacking the maps; raises as `read_map` does."""
    with _telling_damage(path):
        check_regular(path)
        if path.suffix == PLAIN_SUFFIX:
            height, width = _load_plain(path).shape[1:]
            return height, width
        with ZipFile(path) as archive, archive.open("all.npy") as member:
            return _read_head(archive, "all", member)


def read_map(path: Path, part: MapPart = "all", *, is_lasting: bool = False) -> NDArray[np.uint8]:
    """One `(H, W)` uint8 label map. With `is_lasting`, a large one does not stay in memory.

    Raises `ImageUnavailableError` where the file is missing or damaged; class indices are checked by
    `find_wrong_class`.
    """
    with _telling_damage(path):
        check_regular(path)
        if path.suffix == PLAIN_SUFFIX:
            return np.asarray(_load_plain(path)[PARTS.index(part)])
        with ZipFile(path) as archive, archive.open(f"{part}.npy") as member:
            shape = _read_head(archive, part, member)
            if is_lasting and shape[0] * shape[1] > IN_MEMORY_PX:
                return _unpack(member, shape, path.parent)
            return np.frombuffer(member.read(), np.uint8).reshape(shape)


@lru_cache(maxsize=100_000)
def find_wrong_class(path: Path, mtime_ns: int, size: int, n_classes: int) -> int | None:
    """A class index in a file that no class has, or None; each state of a file is read once in a process."""
    is_class = np.zeros(256, bool)
    is_class[:n_classes] = is_class[IGNORE_INDEX] = True
    for part in PARTS:
        values = np.bincount(read_map(path, part).reshape(-1), minlength=256)
        wrong = np.flatnonzero(values[~is_class])
        if wrong.size:
            return int(np.flatnonzero(~is_class)[wrong[0]])
    return None


@contextmanager
def _telling_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno in OF_THE_PROCESS:
            raise
        cause = f"{type(error).__name__}: {error}"
        raise ImageUnavailableError(f"the label maps {path.name} cannot be read: {cause}") from None


def _load_plain(path: Path) -> NDArray[np.uint8]:
    maps: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    if maps.ndim != 3 or len(maps) != len(PARTS) or maps.dtype != np.uint8:
        raise ValueError(f"they are {maps.dtype} of shape {maps.shape}")
    return maps


def _read_head(archive: ZipFile, part: MapPart, member: IO[bytes]) -> tuple[int, int]:
    """The shape of a member, checked against its size: a wrong one would take all memory."""
    np.lib.format.read_magic(member)  # type: ignore[no-untyped-call]
    shape, _, dtype = np.lib.format.read_array_header_1_0(member)  # type: ignore[no-untyped-call]
    n_bytes = archive.getinfo(f"{part}.npy").file_size - member.tell()
    if len(shape) != 2 or dtype != np.uint8 or shape[0] * shape[1] != n_bytes:
        raise ValueError(f"{n_bytes} bytes are {dtype} of shape {shape}")
    return int(shape[0]), int(shape[1])


def _unpack(member: IO[bytes], shape: tuple[int, int], folder: Path) -> NDArray[np.uint8]:
    with tempfile.TemporaryFile(dir=folder) as file:
        copyfileobj(member, file, BAND_BYTES)
        file.flush()
        # The map keeps the file alive; it is gone with the last one who looks at it.
        return np.memmap(file, np.uint8, "r", shape=shape)
