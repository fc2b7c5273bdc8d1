"""What training processes are forked from has loaded what a draft has no time to load."""

from __future__ import annotations

import subprocess
import sys
import threading
from importlib.util import find_spec

import pytest

from ml_backend.rounds import round_process
from ml_backend.rounds.round_process import LOADED_AHEAD, ProcessTrainer, train_here
from ml_backend.training import Trainer

LOADED = f"import sys, threading, {LOADED_AHEAD}; print(*sorted(sys.modules), threading.active_count())"

FORKED = f"""
import multiprocessing
import numpy as np
import torch
import {LOADED_AHEAD}
from core.network.feature_maps import FeatureMaps
from core.network.pixels import PixelStatistics


def look(n_compiled):
    torch.set_num_threads(2)
    image, window = np.zeros((256, 256, 1), np.uint8), (slice(0, 256), slice(0, 256))
    FeatureMaps(PixelStatistics((9.0,), (9.0,)), compiles_for=n_compiled).window(image, window)


for n_compiled in (None, 2):
    child = multiprocessing.get_context("fork").Process(target=look, args=(n_compiled,))
    child.start()
    child.join(60)
    print(child.exitcode)
    child.kill()
"""


def test_a_forest_is_grown_before_a_training_process_is_forked() -> None:
    *loaded, n_threads = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"sklearn.ensemble", "core.learners._feature_kernels", "core.learners._forest_kernels"} <= set(
        loaded
    )
    assert n_threads == "1"  # a thread would not survive the fork


def test_what_is_forked_looks_at_images_with_several_threads() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0"], done.stderr


@pytest.mark.skipif(find_spec("openvino") is None, reason="brushloop[fast] is not installed")
def test_openvino_tells_nobody_that_it_is_used() -> None:
    script = (
        f"import sys, {LOADED_AHEAD}; print('openvino' in sys.modules, sys.modules['openvino_telemetry'])"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["True", "None"]


@pytest.mark.parametrize(
    ("trainer", "wanted"),
    [(ProcessTrainer.__new__(ProcessTrainer), {"codec", "fork server"}), (train_here, {"codec"})],
    ids=["in processes", "in this one"],
)
def test_a_worker_begins_while_what_strokes_would_wait_for_is_made(
    monkeypatch: pytest.MonkeyPatch, trainer: Trainer, wanted: set[str]
) -> None:
    may_end, ended = threading.Event(), threading.Semaphore(0)
    made: set[str] = set()

    def make(what: str) -> None:
        may_end.wait(10)
        made.add(what)
        ended.release()

    monkeypatch.setattr(round_process, "warm_up_codec", lambda: make("codec"))
    monkeypatch.setattr(ProcessTrainer, "warm_up", lambda self: make("fork server"))
    round_process.warm_up(trainer)
    assert not made
    may_end.set()
    for _ in wanted:
        assert ended.acquire(timeout=10)
    assert made == wanted
