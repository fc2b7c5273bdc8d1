"""Why a round ended without a model: truth or setup made it fail, or the machine interrupted it.

A failed round waits for people. An interrupted one is repeated by itself, so the cause must never be named
wrong: only what is listed here counts as failed, and everything else as trouble that may pass.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from core.errors import (
    BrushloopError,
    DeviceError,
    EncoderError,
    ImageError,
    ImageUnavailableError,
    MachineError,
    OutOfMemoryError,
    RoundCancelledError,
    SchemaError,
    TrainingError,
)
from ml_backend.errors import LabelConfigError
from ml_backend.processes.remedies import describe_file
from ml_backend.storage.rounds import RoundState, Trouble

OF_TRUTH_OR_SETUP = (TrainingError, SchemaError, LabelConfigError, DeviceError, EncoderError)
"""Errors that repeating the round does not mend: somebody has to paint, or to change a setting."""

PASSING = (BrushloopError, SQLAlchemyError, OSError, MemoryError)
"""What a round may end with without anybody having to look at a traceback."""

_HELD = "see which process holds it: one that was stopped (SIGSTOP), a backup, or another program"
HELD_WORDS = ("is locked", "lock timeout")
"""How SQLite and PostgreSQL say that somebody else keeps them from writing."""
MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")
"""How torch says in a RuntimeError that memory ran out."""


@dataclass(frozen=True)
class Ending:
    """How a round without a model is recorded; `trouble` tells the next one what to do otherwise."""

    state: RoundState
    cause: str
    trouble: Trouble | None = None


UNEXPECTED = Ending("interrupted", "an unexpected failure; the worker's log has the cause", "machine")


def judge(error: BaseException, *, is_cancelled: bool = False) -> Ending:
    """Say what ended a round.

    Examples
    --------
    >>> judge(OSError(errno.ENOSPC, "No space left on device"))
    Ending(state='interrupted', cause='the disk is full: free some space below DATA_DIR', trouble='machine')
    >>> judge(TrainingError("the loss stopped being a number")).state
    'failed'
    """
    if isinstance(error, RoundCancelledError):
        return Ending("cancelled" if is_cancelled else "interrupted", str(error))
    if is_memory(error):
        return Ending("interrupted", str(error) or "memory ran out", "memory")
    if isinstance(error, OF_TRUTH_OR_SETUP):
        return Ending("failed", str(error))
    if isinstance(error, ImageUnavailableError):
        return Ending("interrupted", str(error), "images")
    return Ending("interrupted", describe(error), "machine")


def may_pass(failure: Exception | None) -> bool:
    """Whether another try may work: not where the image itself is broken, or not allowed."""
    return failure is not None and (not isinstance(failure, ImageError) or isinstance(failure, MachineError))


def is_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the machine or of a GPU."""
    if isinstance(error, OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM  # of a process that cannot be forked
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in MEMORY_WORDS)


def describe(error: BaseException) -> str:
    """The cause and, where there is one, the remedy, in one sentence."""
    beneath = getattr(error, "orig", None)
    if isinstance(error, SQLAlchemyError) and isinstance(beneath, OSError) and beneath.errno:
        return describe(beneath)  # of the folder that the database lies in
    if isinstance(error, SQLAlchemyError):
        cause = str(beneath or error).strip().splitlines()[0]
        remedy = (
            _HELD if any(word in cause for word in HELD_WORDS) else "see that it is reachable and has room"
        )
        return f"the database did not answer as it should ({cause}): {remedy}"
    if isinstance(error, OSError):
        return describe_file(error)
    return str(error) or type(error).__name__


def to_error(ending: Ending) -> BrushloopError:
    """The ending of another process as an error that `judge` gives the same ending for."""
    if ending.trouble == "memory":
        return OutOfMemoryError(ending.cause)
    if ending.trouble == "images":
        return ImageUnavailableError(ending.cause)
    return TrainingError(ending.cause) if ending.state == "failed" else MachineError(ending.cause)
