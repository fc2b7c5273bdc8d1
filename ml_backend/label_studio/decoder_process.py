"""The child of `decoders`: decodes one image after another to disk, within limits that their headers set.

A line of JSON comes in for each image and one goes out. The child ends when its parent is gone, and when
nobody has asked for long. How much memory and processor time an image may take follows from its size, so a
file that needs more is no image of that size, whatever decoder it has found.
"""

from __future__ import annotations

import json
import math
import os
import queue
import resource
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.errors import ImageError
from ml_backend.label_studio.image_cache import write_pixels
from ml_backend.label_studio.image_files import read_image
from ml_backend.label_studio.image_frame import ImageLimits

IDLE_S = 120.0
"""After so long without an image the memory is given back; starting anew takes half a second."""

COPIES, COLOURS = 2.5, 3
"""Decoders hold an image twice, with a third of it while they convert; palettes become three colours."""
SLACK_BYTES = 256_000_000
"""Buffers of decoders, and the compressed file."""

CPU_S, CPU_S_PER_MB = 30, 0.1
"""Some ten times what the slowest decoder takes."""

KILLED_FIRST = "500"
"""Where memory runs out, Linux ends this process before the one that waits for it."""


class HeaderLimits(ImageLimits):
    """Limits that also bound this process as soon as a header said how large the image is."""

    def check_shape(self, height: int, width: int, n_channels: int = 1, n_bytes: int = 1) -> None:
        super().check_shape(height, width, n_channels, n_bytes)
        _bound(height * width * max(n_channels * n_bytes, COLOURS))


def main() -> None:
    """Serve until the parent is gone, or nobody asks."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the parent
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(KILLED_FIRST)
    wanted: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(wanted,), daemon=True).start()
    while True:
        try:
            line = wanted.get(timeout=IDLE_S)
        except queue.Empty:
            return
        json.dump(_answer(json.loads(line)), answers)
        answers.write("\n")
        answers.flush()


def _listen(wanted: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        wanted.put(line)
    os._exit(0)  # the parent is gone, and with it whoever wants what is being decoded


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    limits = HeaderLimits(asked["max_bytes"], asked["max_pixels"])
    try:
        pixels = read_image(Path(asked["file"]), limits)
        write_pixels(Path(asked["target"]), pixels)
    except ImageError as error:
        return {"image": str(error)}
    except OSError as error:
        return {"disk": error.errno, "what": error.strerror}
    finally:
        _unbound()
    return {}


def _bound(decoded_bytes: int) -> None:
    used_s, hard_s = math.ceil(time.process_time()), resource.getrlimit(resource.RLIMIT_CPU)[1]
    allowed_s = CPU_S + math.ceil(CPU_S_PER_MB * decoded_bytes / 1e6)
    _limit(resource.RLIMIT_CPU, used_s + allowed_s, hard_s)
    memory = int(COPIES * decoded_bytes) + SLACK_BYTES
    _limit(resource.RLIMIT_AS, _address_space() + memory, resource.getrlimit(resource.RLIMIT_AS)[1])


def _unbound() -> None:
    for kind in (resource.RLIMIT_CPU, resource.RLIMIT_AS):
        hard = resource.getrlimit(kind)[1]
        _limit(kind, hard, hard)


def _limit(kind: int, soft: int, hard: int) -> None:
    if hard != resource.RLIM_INFINITY and (soft == resource.RLIM_INFINITY or soft > hard):
        soft = hard
    with suppress(ValueError, OSError):  # systems without this limit still have the parent's clock
        resource.setrlimit(kind, (soft, hard))


def _address_space() -> int:
    """What this process has mapped, in bytes; more than all memory where nobody can say."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[0]
    except OSError:
        return sys.maxsize // 2
    return int(pages) * resource.getpagesize()


if __name__ == "__main__":
    main()
