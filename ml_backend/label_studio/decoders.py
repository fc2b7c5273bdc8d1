"""Images are decoded in child processes that stay warm: what a file does to its decoder, it does there.

A child bounds its own memory and processor time (`decoder_process`). Here the wall clock is watched, and what
ended a child is said as a fault of the image, with a remedy. A child writes its pixels to disk, where they
are wanted anyway, so nothing large goes through a pipe.
"""

from __future__ import annotations

import json
import math
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from core.errors import ImageError, ImageUnavailableError
from ml_backend.config import child_environment
from ml_backend.label_studio.image_frame import ImageLimits
from ml_backend.processes.patience import LOOK_S, check_stop
from ml_backend.processes.process_identity import Stopped

Decode = Callable[[Path, Path, ImageLimits], None]
"""Read an image file and write its pixels to another file, in numpy's format."""

COMMAND = (sys.executable, "-m", "ml_backend.label_studio.decoder_process")
LONGEST_S = 180.0
"""A decoder that has not answered after this long hangs; one that computes was stopped before."""
REMEMBERED_S, MOST_REMEMBERED = 600.0, 1000
"""So long, and so many: each further try would hold a place as long as the first."""
STARTS = 2
"""A child that nobody asked for long may end in the very moment that it is asked."""

REMEDY = "open it in another program and save it as PNG or as TIFF"
OUTSIDE_CAUSES = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""Signals that other processes send. Of the image they say nothing."""


class BrokenDecoderError(ImageError):
    """An image that ended its decoder, or had to be taken from it: the next try would end alike."""


class BrokenImages:
    """Images that broke their decoder lately: asked for again, they are refused at once."""

    def __init__(self, remembered_s: float = REMEMBERED_S) -> None:
        self._remembered_s = remembered_s
        self._notes: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, name: str) -> None:
        """Raise what the image raised before."""
        with self._lock:
            noted_at, message = self._notes.get(name, (-math.inf, ""))
        if time.monotonic() - noted_at < self._remembered_s:
            raise BrokenDecoderError(message)

    @contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """Remember the image if it breaks its decoder inside the block."""
        try:
            yield
        except BrokenDecoderError as error:
            with self._lock:
                self._notes[name] = (time.monotonic(), str(error))
                self._notes.move_to_end(name)
                while len(self._notes) > MOST_REMEMBERED:
                    self._notes.popitem(last=False)
            raise


class Decoders:
    """Children that are idle wait here for the next image; more are started when all are busy."""

    def __init__(self, command: Sequence[str] = COMMAND, longest_s: float = LONGEST_S) -> None:
        self._command, self._longest_s = tuple(command), longest_s
        # By priority: a child keeps that of the thread that started it, and nobody urgent gets a slow one.
        self._idle: defaultdict[int, queue.LifoQueue[_Child]] = defaultdict(queue.LifoQueue)

    def __call__(self, file: Path, target: Path, limits: ImageLimits) -> None:
        """Decode in a child; raises `ImageError`, or `OSError` where the pixels cannot be written."""
        asked = {
            "file": str(file.absolute()),
            "target": str(target.absolute()),
            "max_bytes": limits.max_bytes,
            "max_pixels": limits.max_pixels,
        }
        answer = self._ask(json.dumps(asked).encode() + b"\n")
        if "image" in answer:
            raise ImageError(str(answer["image"]))
        if "disk" in answer:
            raise OSError(answer["disk"], answer["what"])

    def close(self) -> None:
        """End the children that are idle."""
        for children in list(self._idle.values()):
            with suppress(queue.Empty):
                while True:
                    children.get_nowait().end()

    def _ask(self, line: bytes) -> dict[str, object]:
        children = self._idle[os.getpriority(os.PRIO_PROCESS, 0)]
        for _ in range(STARTS):
            child = self._take(children)
            answer = None
            try:
                answer = child.ask(line, self._longest_s)
            finally:
                if answer is None:
                    child.end()
            if answer is not None:
                children.put(child)
                return answer
        raise ImageUnavailableError("no process to decode images can be started: see the log above")

    def _take(self, idle: queue.LifoQueue[_Child]) -> _Child:
        try:
            return idle.get_nowait()
        except queue.Empty:
            return _Child(self._command)


class _Child:
    """One process, and the two pipes to it."""

    def __init__(self, command: Sequence[str]) -> None:
        # Its modules are found where ours are, whatever started this process.
        environment = child_environment({"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)})
        self._process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise ValueError("both ends were asked to be pipes")
        # It may end by itself, long before anybody asks again: without somebody who waits it stays a zombie.
        threading.Thread(target=self._process.wait, name="decoder", daemon=True).start()
        self._asked, self._answers = self._process.stdin, self._process.stdout

    def ask(self, line: bytes, longest_s: float) -> dict[str, object] | None:
        """The answer; None where the child had ended before it was asked."""
        try:
            self._asked.write(line)
        except OSError:
            return None
        answer = self._wait(longest_s)
        if answer:
            return dict(json.loads(answer))
        code = self._process.wait()
        if code == 0:
            return None
        raise _explain(code)

    def end(self) -> None:
        """Kill it, and give back what the system keeps of it."""
        self._process.kill()
        self._process.wait()
        self._asked.close()
        self._answers.close()

    def _wait(self, longest_s: float) -> bytes:
        """The line that it answers; empty where it ended without."""
        received, until = b"", time.monotonic() + longest_s
        is_stopped = Stopped(self._process.pid)
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                check_stop()
                if is_stopped():
                    raise ImageUnavailableError(
                        "the process that decodes the image was stopped (SIGSTOP), so it was ended: see who"
                        " stops processes of this machine"
                    )
                if time.monotonic() > until:
                    raise BrokenDecoderError(
                        f"decoding the image did not end within {longest_s:g} s: {REMEDY}"
                    )
                if selector.select(LOOK_S):
                    part = os.read(self._answers.fileno(), 65536)
                    if not part:
                        return b""
                    received += part
        return received


@lru_cache(maxsize=1)
def shared_decoders() -> Decoders:
    """The children of this process, for all its images."""
    return Decoders()


def _explain(code: int) -> ImageError:
    """What ended a child, as an error of the image that it had."""
    if -code in OUTSIDE_CAUSES:
        name = signal.Signals(-code).name
        return ImageUnavailableError(
            f"the process that decoded the image was ended by {name}; the machine may be out of memory:"
            " give it more, or cut the image into smaller ones"
        )
    if code == -signal.SIGXCPU:
        return BrokenDecoderError(f"decoding the image takes far longer than its size allows: {REMEDY}")
    how = signal.Signals(-code).name if code < 0 else f"code {code}"
    return BrokenDecoderError(f"the image broke its decoder ({how}), so it is damaged: {REMEDY}")
