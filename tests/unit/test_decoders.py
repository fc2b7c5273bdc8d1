"""Whatever an image does to its decoder, it does to a child process: it is said, and nothing else suffers."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
from PIL import Image

from core.errors import ImageError, ImageUnavailableError, RoundCancelledError
from ml_backend.label_studio.decoders import BrokenDecoderError, BrokenImages, Decoders
from ml_backend.label_studio.image_cache import write_pixels
from ml_backend.label_studio.image_frame import ImageLimits
from ml_backend.label_studio.images import CachedImages, ImageAccess, ImageSettings
from ml_backend.processes import process_identity
from ml_backend.processes.patience import patience

LIMITS = ImageLimits(max_bytes=10**8, max_pixels=12 * 10**7)
PIXELS = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)

FAKE = """
import os, signal, time
import numpy as np
from ml_backend.label_studio import decoder_process, image_files

plain = image_files._read_with_pillow

def read(path, limits, start):
    limits.check_shape(20, 30, 3)
    content = path.read_bytes()
    if content.endswith(b"hang"): time.sleep(600)
    if content.endswith(b"busy"):
        while True: pass
    if content.endswith(b"greedy"): np.ones(2 * 10**9, np.uint8)
    if content.endswith(b"abort"): os.abort()
    if content.endswith(b"killed"): os.kill(os.getpid(), signal.SIGKILL)
    if content.endswith(b"stopped"): os.kill(os.getpid(), signal.SIGSTOP)
    return plain(path, limits, start)

image_files._read_with_pillow = read
decoder_process.CPU_S, decoder_process.IDLE_S = 1, {idle_s}
decoder_process.main()
"""


def fake_command(idle_s: float = 60.0) -> list[str]:
    """A real child whose decoder misbehaves where the last bytes of a file ask for it."""
    return [sys.executable, "-c", FAKE.format(idle_s=idle_s)]


def write_png(path: Path, ending: bytes = b"") -> Path:
    Image.fromarray(PIXELS).save(path)
    path.write_bytes(path.read_bytes() + ending)
    return path


def png_header(width: int, height: int, colour: int, bits: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(b"\0" * 100)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    shared = Decoders()
    yield shared
    shared.close()


@pytest.fixture
def fake(request: pytest.FixtureRequest) -> Iterator[Decoders]:
    made = Decoders(fake_command(), longest_s=getattr(request, "param", 60.0))
    yield made
    made.close()


def decode(decoders: Decoders, path: Path) -> np.ndarray:
    target = path.with_suffix(".npy")
    decoders(path, target, LIMITS)
    pixels: np.ndarray = np.load(target)
    return pixels


def test_pixels_come_as_they_are(decoders: Decoders, tmp_path: Path) -> None:
    assert np.array_equal(decode(decoders, write_png(tmp_path / "a.png")), PIXELS)
    deep = np.arange(8 * 9 * 4, dtype=np.uint16).reshape(8, 9, 4)
    tifffile.imwrite(tmp_path / "b.tif", deep, photometric="minisblack", planarconfig="contig")
    assert np.array_equal(decode(decoders, tmp_path / "b.tif"), deep)


def test_a_child_serves_many_images(decoders: Decoders, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png")
    decode(decoders, tmp_path / "a.png")
    children = {child.pid for child in psutil.Process().children()}
    for _ in range(3):
        decode(decoders, tmp_path / "a.png")
    assert {child.pid for child in psutil.Process().children()} == children


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>sign in</html>", "an HTML page"),
        (png_header(100_000_000, 1, 0, 8), "no side may be longer"),
        (png_header(11_000, 11_000, 6, 16), "MAX_IMAGE_MEGAPIXELS"),
    ],
    ids=["no image", "one row of 100,000,000 px", "121 Mpx of RGBA with 16 bits"],
)
def test_what_the_header_tells_is_refused_before_anything_is_decoded(
    decoders: Decoders, tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ImageError, match=said):
        decode(decoders, tmp_path / "a")


def test_a_deflate_bomb_in_a_tiff_is_refused(decoders: Decoders, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64, 5), np.uint8), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        page: Any = tiff.pages[0]
        offset_at = page.tags["StripOffsets"].valueoffset
        length_at = page.tags["StripByteCounts"].valueoffset
    bomb = zlib.compress(b"\0" * 300_000_000, 9)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    n_bytes = len(content)
    content[offset_at : offset_at + 4] = struct.pack("<I", n_bytes)
    content[length_at : length_at + 4] = struct.pack("<I", len(bomb))
    (tmp_path / "a.tif").write_bytes(bytes(content) + bomb)
    with pytest.raises(ImageError):
        decode(decoders, tmp_path / "a.tif")
    assert np.array_equal(decode(decoders, write_png(tmp_path / "b.png")), PIXELS)


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (b"busy", r"takes far longer than its size allows: open it in another program and save it"),
        (b"greedy", r"takes far more memory than its size allows: open it in another program and save it"),
        (
            b"abort",
            r"broke its decoder \(SIGABRT\), so it is damaged: open it in another program and save it",
        ),
    ],
)
def test_what_breaks_a_decoder_is_said_with_its_remedy(
    fake: Decoders, tmp_path: Path, ending: bytes, said: str
) -> None:
    with pytest.raises(ImageError, match=said) as caught:
        decode(fake, write_png(tmp_path / "a.png", ending))
    assert not isinstance(caught.value, ImageUnavailableError)
    assert np.array_equal(decode(fake, write_png(tmp_path / "b.png")), PIXELS)


@pytest.mark.parametrize("fake", [1.0], indirect=True)
def test_a_decoder_that_hangs_is_ended(fake: Decoders, tmp_path: Path) -> None:
    with pytest.raises(BrokenDecoderError, match="did not end within 1 s: open it in another program"):
        decode(fake, write_png(tmp_path / "a.png", b"hang"))
    assert not [child for child in psutil.Process().children() if FAKE[:20] in " ".join(child.cmdline())]


def test_a_decoder_that_somebody_killed_says_nothing_of_the_image(fake: Decoders, tmp_path: Path) -> None:
    with pytest.raises(
        ImageUnavailableError, match="SIGKILL; the machine may be out of memory: give it more"
    ):
        decode(fake, write_png(tmp_path / "a.png", b"killed"))


def test_a_decoder_that_is_stopped_is_ended_and_says_nothing_of_the_image(
    fake: Decoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_identity, "STOPPED_S", 0.3)
    with pytest.raises(ImageUnavailableError, match="stopped"):
        decode(fake, write_png(tmp_path / "a.png", b"stopped"))
    assert np.array_equal(decode(fake, write_png(tmp_path / "b.png")), PIXELS)


def test_a_child_that_ended_because_nobody_asked_is_replaced(tmp_path: Path) -> None:
    fake = Decoders(fake_command(idle_s=0.05))
    write_png(tmp_path / "a.png")
    before = {child.pid for child in psutil.Process().children()}
    for _ in range(2):
        assert np.array_equal(decode(fake, tmp_path / "a.png"), PIXELS)
        for child in psutil.Process().children():
            if child.pid not in before:
                child.wait(20)
    fake.close()


def test_a_child_that_ended_leaves_no_zombie(tmp_path: Path) -> None:
    before = {child.pid for child in psutil.Process().children()}
    fake = Decoders(fake_command(idle_s=0.05))
    decode(fake, write_png(tmp_path / "a.png"))
    deadline = time.monotonic() + 20
    while {child.pid for child in psutil.Process().children()} - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert {child.pid for child in psutil.Process().children()} <= before
    fake.close()


def test_a_disk_that_refuses_the_pixels_is_not_the_images_fault(decoders: Decoders, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        decoders(write_png(tmp_path / "a.png"), tmp_path / "gone" / "a.npy", LIMITS)


def test_one_who_is_asked_to_stop_does_not_wait_for_a_decoder(fake: Decoders, tmp_path: Path) -> None:
    with patience(should_stop=lambda: True), pytest.raises(RoundCancelledError):
        decode(fake, write_png(tmp_path / "a.png", b"hang"))


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", b"hang")
    code = (
        "import psutil, sys, threading, time\n"
        "from pathlib import Path\n"
        "from ml_backend.label_studio.decoders import Decoders\n"
        "from ml_backend.label_studio.image_frame import ImageLimits\n"
        f"decoders = Decoders({fake_command()!r})\n"
        f"asked = (Path({str(tmp_path / 'a.png')!r}), Path({str(tmp_path / 'a.npy')!r}), {LIMITS!r})\n"
        "threading.Thread(target=decoders, args=asked, daemon=True).start()\n"
        "while not psutil.Process().children(): time.sleep(0.05)\n"
        "print(psutil.Process().children()[0].pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    psutil.wait_procs([child], timeout=30)
    assert not child.is_running()


def test_a_broken_image_is_refused_at_once_the_next_time_and_tried_again_later() -> None:
    tried = []
    for remembered_s, n_tries in ((600.0, 1), (0.0, 2)):
        broken = BrokenImages(remembered_s)
        tried.clear()
        for _ in range(2):
            with pytest.raises(BrokenDecoderError, match="hangs"):
                try_once(broken, tried)
        assert len(tried) == n_tries


def try_once(broken: BrokenImages, tried: list[int]) -> None:
    broken.check("a")
    with broken.noting("a"):
        tried.append(1)
        raise BrokenDecoderError("hangs")


def test_images_of_a_project_that_hang_delay_no_other_project(tmp_path: Path) -> None:
    release, entered = threading.Event(), threading.Semaphore(0)

    def hang_in_the_first_project(file: Path, target: Path, limits: ImageLimits) -> None:
        if file.name.startswith("bad"):
            entered.release()
            release.wait(60)
            raise BrokenDecoderError("it hung")
        write_pixels(target, PIXELS)

    settings = ImageSettings("http://127.0.0.1:1", 10**8, 10**8, 10**9, allowed_folders=(tmp_path,))
    images = CachedImages(
        tmp_path / "cache",
        settings,
        lambda project_id: ImageAccess(f"p{project_id}"),
        decode=hang_in_the_first_project,
    )
    for name in ("bad1.png", "bad2.png", "bad3.png", "good.png"):
        write_png(tmp_path / name)
    said: list[str] = []

    def open_bad(number: int) -> None:
        with pytest.raises(ImageError) as caught:
            images.open(1, number, {"image": f"{tmp_path}/bad{number}.png"})
        said.append(str(caught.value))

    threads = [threading.Thread(target=open_bad, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    try:
        assert entered.acquire(timeout=20)
        began = time.monotonic()
        pixels = images.open(2, 9, {"image": f"{tmp_path}/good.png"})
        assert np.array_equal(pixels, PIXELS)
        assert time.monotonic() - began < 20
        assert not said
    finally:
        release.set()
        for thread in threads:
            thread.join()
        images.close()
    assert said == ["it hung"] * 3
