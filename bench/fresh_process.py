"""Work in a process of its own: nothing is warm, and its memory is nobody else's."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from bench.process_tree import peak_bytes


def run_fresh(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Call a function of a module in a new interpreter; adds the `peak_bytes` of that process.

    Raises
    ------
    RuntimeError
        The process ended without an answer; its own message is on the console.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, work, arguments))
    process.start()
    theirs.close()
    try:
        found: dict[str, Any] = ours.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{work.__name__} ended with code {process.exitcode}") from None
    process.join()
    return found


def own_peak_bytes() -> int:
    """The most memory that was ever resident in this process."""
    peak = peak_bytes(os.getpid())
    if peak:
        return peak
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def _answer(pipe: Connection[Any, Any], work: Callable[..., dict[str, Any]], arguments: Any) -> None:
    found = work(*arguments)
    pipe.send({**found, "peak_bytes": own_peak_bytes()})
    pipe.close()
