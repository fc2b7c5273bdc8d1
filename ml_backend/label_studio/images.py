"""Pixels of a task's image: located, fetched within limits, decoded once, and kept on disk."""

from __future__ import annotations

import hashlib
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from numpy.typing import NDArray

from core.errors import ImageError, ImageUnavailableError
from ml_backend.config import Settings
from ml_backend.label_studio.addresses import (
    SOURCE_SCHEME,
    Address,
    AddressPolicy,
    FileAddress,
    InlineAddress,
    WebAddress,
    locate,
)
from ml_backend.label_studio.connection import Connection
from ml_backend.label_studio.decoders import BrokenImages, Decode, shared_decoders
from ml_backend.label_studio.downloads import download, new_http_client
from ml_backend.label_studio.image_cache import ImageCache
from ml_backend.label_studio.image_files import read_size
from ml_backend.label_studio.image_frame import ImageLimits
from ml_backend.label_studio.label_config import find_image_address
from ml_backend.processes.fair_places import FairPlaces
from ml_backend.processes.patience import check_stop, is_over, patience, waiting_for

DEFAULT_IMAGE_KEY = "image"
SOURCE_KEY = "source"
"""Where a task names the original of its image, with all channels and bits, for the network."""

MEGA, GIGA = 1_000_000, 1_000_000_000
DECODED_AT_ONCE, DECODED_PER_PROJECT = 3, 2
"""Images decoded side by side for one process: each takes memory. Any number may be on their way here."""
PLACE_LOOK_S = 0.02


@dataclass(frozen=True)
class ImageAccess:
    """What one project needs to get at its images.

    `folder` keeps its cache apart from those of other projects; `image_key` is `LabelConfig.image_key`;
    `hostname` is what `/setup` said; without `connection` nothing is sent along. `sources` keeps originals.
    """

    folder: str
    image_key: str = DEFAULT_IMAGE_KEY
    hostname: str = ""
    connection: Connection | None = None
    sources: Path | None = None


@dataclass(frozen=True)
class ImageSettings:
    """What the settings say about images, in plain units."""

    label_studio_url: str
    max_bytes: int
    max_pixels: int
    cache_bytes: int
    allowed_hosts: tuple[str, ...] = ()
    allowed_folders: tuple[Path, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> ImageSettings:
        return cls(
            label_studio_url=settings.label_studio_url,
            max_bytes=settings.max_image_mb * MEGA,
            max_pixels=settings.max_image_megapixels * MEGA,
            cache_bytes=int(settings.image_cache_gb * GIGA),
            allowed_hosts=settings.allowed_image_hosts,
            allowed_folders=settings.allowed_image_folders,
        )


class CachedImages:
    """`ports.ImageSource` over Label Studio, allowed hosts and allowed folders; for any number of threads.

    `access` tells what a project needs, by its id. What is on the web counts as unchanging: Label Studio
    gives every upload its own address. All downloads together may take `fetch_s` seconds.
    """

    def __init__(
        self,
        folder: Path,
        settings: ImageSettings,
        access: Callable[[int], ImageAccess],
        transport: httpx.BaseTransport | None = None,
        fetch_s: float = math.inf,
        decode: Decode | None = None,
    ) -> None:
        self._fetch_left_s = fetch_s
        self._settings = settings
        self._limits = ImageLimits(settings.max_bytes, settings.max_pixels)
        self._cache = ImageCache(folder, settings.cache_bytes)
        self._access = access
        self._http = new_http_client(transport)
        self._locks: weakref.WeakValueDictionary[str, threading.Lock] = weakref.WeakValueDictionary()
        self._locks_guard = threading.Lock()
        self._places = FairPlaces(DECODED_AT_ONCE, DECODED_PER_PROJECT)
        self._decode = decode or shared_decoders()
        self._broken = BrokenImages()

    def open(self, project_id: int, task_id: int, data: Mapping[str, Any]) -> NDArray[Any]:
        """`(H, W, C)` uint8 or uint16, a memory map over the cache; raises `ImageError`.

        No longer than the caller's patience lasts; raises `RoundCancelledError` where one is asked to stop.
        """
        access = self._access(project_id)
        policy = self._policy(access)
        address = locate(_address_of(data, access.image_key), task_id, policy)
        try:
            name = self._cache_name(access, address)
            kept = self._cache.find(name)
            if kept is not None:
                return kept
            with waiting_for(self._lock(name)) as is_ours:  # two equal requests at once fetch once
                _check_patience(is_ours)
                cached = self._cache.find(name)
                if cached is None:
                    cached = self._cache.fill(name, self._reader(project_id, name, address, policy, access))
                return cached
        except OSError as error:
            raise ImageUnavailableError(
                f"the image cannot be read or kept: {error.strerror or error}"
            ) from None

    def shape(self, project_id: int, task_id: int, data: Mapping[str, Any]) -> tuple[int, int]:
        """`(H, W)`, from the cache or, for files at hand, from the header."""
        access = self._access(project_id)
        address = locate(_address_of(data, access.image_key), task_id, self._policy(access))
        try:
            cached = self._cache.find(self._cache_name(access, address))
            # An original is opened soon after, and decoding it is what takes long.
            if cached is None and isinstance(address, FileAddress) and not _is_source(address, access):
                return read_size(address.path, self._limits)
        except OSError as error:
            raise ImageUnavailableError(f"the image cannot be read: {error.strerror or error}") from None
        height, width = (self.open(project_id, task_id, data) if cached is None else cached).shape[:2]
        return height, width

    def sweep(self) -> None:
        """Remove what killed processes left half-done."""
        self._cache.sweep()

    def close(self) -> None:
        self._http.close()

    def _policy(self, access: ImageAccess) -> AddressPolicy:
        settings = self._settings
        return AddressPolicy(
            settings.label_studio_url,
            access.hostname,
            settings.allowed_hosts,
            settings.allowed_folders,
            access.sources,
        )

    def _reader(
        self, project_id: int, name: str, address: Address, policy: AddressPolicy, access: ImageAccess
    ) -> Callable[[Path], None]:
        """What writes the pixels of an image to a file."""

        def read(target: Path) -> None:
            self._broken.check(name)
            if isinstance(address, FileAddress):
                self._decode_to(target, address.path, project_id, name)
                return
            with self._cache.scratch_file() as file:
                if isinstance(address, InlineAddress):
                    self._limits.check_bytes(len(address.content))
                    file.write_bytes(address.content)
                else:
                    self._download(address, policy, access, file)
                self._decode_to(target, file, project_id, name)

        return read

    def _download(self, address: WebAddress, policy: AddressPolicy, access: ImageAccess, file: Path) -> None:
        began = time.monotonic()
        try:
            with patience(self._fetch_left_s):
                download(self._http, address, policy, access.connection, self._limits, file)
        finally:
            self._fetch_left_s -= time.monotonic() - began

    def _decode_to(self, target: Path, file: Path, project_id: int, name: str) -> None:
        with self._place(project_id), self._broken.noting(name):
            self._decode(file, target, self._limits)

    @contextmanager
    def _place(self, project_id: int) -> Iterator[None]:
        """Hold a place to decode; raises when the patience is over before there is one."""
        while True:
            with self._places.enter(project_id) as is_ours:
                if is_ours:
                    yield
                    return
            _check_patience(not is_over())
            time.sleep(PLACE_LOOK_S)

    def _cache_name(self, access: ImageAccess, address: Address) -> str:
        """Another limit, another file content, another project: another name."""
        digest = hashlib.blake2b(repr(self._limits).encode(), digest_size=16)
        if isinstance(address, FileAddress):
            stat = address.path.stat()
            digest.update(f"file:{address.path}:{stat.st_mtime_ns}:{stat.st_size}".encode())
        elif isinstance(address, InlineAddress):
            digest.update(b"inline:" + address.content)
        else:
            digest.update(f"web:{address.url}".encode())
        return f"{access.folder}/{digest.hexdigest()}"

    def _lock(self, name: str) -> threading.Lock:
        with self._locks_guard:
            lock = self._locks.get(name)
            if lock is None:
                lock = self._locks[name] = threading.Lock()
            return lock


def _check_patience(is_ours: bool) -> None:
    if not is_ours:
        check_stop()
        raise ImageUnavailableError("there was no time left to fetch or decode the image")


def _is_source(address: FileAddress, access: ImageAccess) -> bool:
    return address.path.parent == access.sources


def _address_of(data: Mapping[str, Any], image_key: str) -> str:
    """The original where there is one, else what people see."""
    source = data.get(SOURCE_KEY)
    if isinstance(source, str) and source.startswith(f"{SOURCE_SCHEME}:"):
        return source
    address = find_image_address(data, image_key)
    if address is None:
        raise ImageError(f"the task's data has no image under {image_key!r}")
    return address
