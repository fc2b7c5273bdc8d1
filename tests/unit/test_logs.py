"""The log has a cap: what a library repeats is said once, in one line, and again ever more seldom."""

from __future__ import annotations

import contextlib
import itertools
import logging
import signal
import subprocess
import sys

from loop_fakes import make_bench
from sqlalchemy.exc import OperationalError

from ml_backend.logs import LONGEST_SILENCE_S, Repeats
from ml_backend.rounds import lease as leases
from ml_backend.rounds.lease import take_lease


def failure(name: str = "huey.consumer", cause: str = "Redis is away\nmore") -> logging.LogRecord:
    error = ConnectionError(cause)
    trouble = (type(error), error, None)
    return logging.LogRecord(name, logging.ERROR, "", 1, "Error reading from queue", (), trouble)


def test_a_library_says_a_trouble_once_in_one_line_and_then_ever_more_seldom():
    now = [0.0]
    repeats = Repeats(lambda: now[0])
    said = []
    for second in range(4 * 3600):
        now[0] = float(second)
        record = failure()
        if repeats.filter(record):
            said.append((second, record))
    seconds = [second for second, _ in said]
    assert seconds[:4] == [0, 60, 180, 420]
    assert max(later - earlier for earlier, later in itertools.pairwise(seconds)) <= LONGEST_SILENCE_S
    assert said[0][1].getMessage() == "Error reading from queue cause=Redis is away unsaid=0"
    assert said[1][1].getMessage().endswith("unsaid=59")
    assert all(record.exc_info is None for _, record in said)


def test_another_trouble_of_the_library_is_heard_at_once_and_our_own_lines_always():
    repeats = Repeats(lambda: 0.0)
    assert repeats.filter(failure())
    other = logging.LogRecord("huey.consumer", logging.ERROR, "", 1, "Process %s died!", ("w1",), None)
    assert repeats.filter(other)
    assert all(repeats.filter(failure("ml_backend.worker")) for _ in range(3))


def test_missed_heartbeats_are_told_when_they_begin_and_when_they_end(tmp_path, caplog, monkeypatch):
    bench = make_bench(tmp_path)
    bench.submit(1)
    monkeypatch.setattr(leases, "BEAT_S", 0.0)
    caplog.set_level(logging.INFO)
    beats: list[int] = []

    def beat_once(self: leases.Lease) -> None:
        beats.append(len(beats))
        if len(beats) <= 50:
            raise OperationalError("", {}, ConnectionError("database away"))
        self._ended.set()

    monkeypatch.setattr(leases.Lease, "_beat_once", beat_once)
    lease = take_lease(bench.loop.parts, 1, lambda: False)
    with contextlib.suppress(leases.LeaseLostError), lease:
        lease._ended.wait(60)
    said = [record.getMessage().split()[0] for record in caplog.records if "beat" in record.getMessage()]
    assert said == ["miss_beat", "resume_beat"]
    bench.close()


def test_a_process_that_the_kernel_ends_over_its_memory_says_so_first():
    """As of a database file that became immutable, or lies on a disk that failed."""
    script = (
        "import os, signal\n"
        "from ml_backend.config import Settings\n"
        "from ml_backend.logs import set_up_logging\n"
        "set_up_logging(Settings()); os.kill(os.getpid(), signal.SIGBUS)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGBUS
    assert "Bus error" in ended.stderr
