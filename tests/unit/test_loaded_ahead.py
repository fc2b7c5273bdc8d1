"""What training processes are forked from has loaded what a draft has no time to load."""

from __future__ import annotations

import subprocess
import sys

from ml_backend.rounds.round_process import LOADED_AHEAD

SCRIPT = f"import sys, threading, {LOADED_AHEAD}; print(*sorted(sys.modules), threading.active_count())"


def test_a_forest_is_grown_before_a_training_process_is_forked() -> None:
    *loaded, n_threads = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"sklearn.ensemble", "core.learners._feature_kernels", "core.learners._forest_kernels"} <= set(
        loaded
    )
    assert n_threads == "1"  # a thread would not survive the fork
