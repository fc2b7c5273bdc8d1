"""Threads of torch in processes that are forked after it was used, as trainings are from their server."""

from __future__ import annotations

import subprocess
import sys

FORKS = 60
"""Without new threads for each of them, one in five fails."""

TWO_THREADS_AT_ONCE = f"""
import os, threading
import torch
import ml_backend.rounds.round_process

torch.set_num_threads(2)
torch.ones(100_000).sum()

def begin(together, failed):
    together.wait()
    try:
        torch.ones(300, 300) @ torch.ones(300, 300)
    except RuntimeError as error:
        failed.append(error)

n_failed = 0
for _ in range({FORKS}):
    child = os.fork()
    if child == 0:
        together, failed = threading.Barrier(2), []
        threads = [threading.Thread(target=begin, args=(together, failed)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        os._exit(len(failed))
    n_failed += os.waitpid(child, 0)[1] != 0
print(n_failed, torch.get_num_threads())
"""


def test_two_threads_of_a_forked_process_may_begin_with_torch_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWO_THREADS_AT_ONCE], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["0", "2"], done.stderr
