"""Training in a process of its own: the worker stays awake, and what kills a training kills nothing else.

Children come from a fork server that has imported torch once, so a round starts in milliseconds. The pipe
between worker and child carries progress one way and "stop" the other way. It also ties their lives: a child
whose worker was killed reads the end of the pipe and ends at once, so no orphan trains on.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from core.errors import MachineError, OutOfMemoryError, RoundCancelledError
from core.network.checkpoint import load_checkpoint, save_checkpoint
from core.rle import warm_up as warm_up_codec
from core.rounds import RoundSettings
from core.threads import renew_threads
from core.training.recipe import Recipe
from core.training.trainer import train_round
from ml_backend.config import Settings
from ml_backend.ports import ImageSource
from ml_backend.processes.patience import patience, waiting_for
from ml_backend.processes.priority import LOWER_PRIORITY, LOWEST_PRIORITY, step_back_process
from ml_backend.processes.process_identity import Stopped
from ml_backend.rounds import fork_server, troubles
from ml_backend.rounds.encoder_weights import fetch_encoder
from ml_backend.storage.kept_maps import KeptMaps
from ml_backend.training import OnProgress, StoredExamples, TrainedRound, Trainer, TrainingSpec

log = logging.getLogger(__name__)

LOADED_AHEAD = "core.training.compiled_ahead"
"""Of the fork server: a draft has no seconds to import and compile in."""

POLL_S = 0.2
STOP_GRACE_S = 15.0
"""How long a child that was asked to stop may take, before it is killed: one step and the checks after it."""
PROGRESS_EVERY_S = 0.25
BEGUN = 0.001
"""Share that is done when a training gets its place: from here on it takes from others."""

HINTS: Mapping[int, str] = {
    signal.SIGKILL: "; the machine may be out of memory",
    signal.SIGBUS: "; a file that it read was cut short, or its disk (DATA_DIR) fails or is full",
}
"""What such a signal may come of."""

ImageFactory = Callable[[Settings], ImageSource]

os.register_at_fork(after_in_child=renew_threads)  # of the fork server, whose children are trainings


class ProcessTrainer:
    """Carries out specifications in child processes; implements `training.Trainer`.

    `image_factory` is called in the child.
    """

    def __init__(self, settings: Settings, image_factory: ImageFactory) -> None:
        self._settings, self._image_factory = settings, image_factory
        # A round takes its place only now: what it waited for before kept no other project from training.
        self._places = threading.BoundedSemaphore(settings.training_slots)
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__, image_factory.__module__, LOADED_AHEAD])

    def warm_up(self) -> None:
        """Start the fork server, so that the first round does not wait for torch."""
        process = self._context.Process(target=_do_nothing)
        fork_server.start(process)
        process.join()

    def __call__(
        self,
        spec: TrainingSpec,
        on_progress: OnProgress,
        should_stop: Callable[[], bool],
        should_finish: Callable[[], bool] = lambda: False,
    ) -> TrainedRound:
        if spec.is_patient:  # it has a lane of its own, and gives way
            return self._train(spec, on_progress, should_stop, should_finish)
        with patience(should_stop=should_stop), waiting_for(self._places) as is_ours:
            if not is_ours:
                raise RoundCancelledError("stopped before the training began")
            on_progress(BEGUN, None)
            return self._train(spec, on_progress, should_stop, should_finish)

    def _train(
        self,
        spec: TrainingSpec,
        on_progress: OnProgress,
        should_stop: Callable[[], bool],
        should_finish: Callable[[], bool],
    ) -> TrainedRound:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_run_child, args=(theirs, self._settings, self._image_factory, spec), daemon=True
        )
        fork_server.start(process)
        theirs.close()
        try:
            return _listen(process, ours, on_progress, should_stop, should_finish)
        finally:
            ours.close()
            process.join(STOP_GRACE_S)
            if process.is_alive():
                process.kill()
                process.join()


def warm_up(trainer: Trainer) -> None:
    """Import, compile and fork in the background what the first strokes would wait for."""
    own = [trainer.warm_up] if isinstance(trainer, ProcessTrainer) else []
    for prepare in (warm_up_codec, *own):
        threading.Thread(target=prepare, daemon=True).start()


def train_here(
    spec: TrainingSpec,
    images: ImageSource,
    on_progress: OnProgress,
    should_stop: Callable[[], bool],
    should_finish: Callable[[], bool] = lambda: False,
) -> TrainedRound:
    """Carry out a specification in this process."""
    start = load_checkpoint(spec.start) if spec.start else None
    recipe = Recipe()
    smaller = max(recipe.batch_size >> spec.halvings, 1)
    result = train_round(
        StoredExamples(spec.examples, spec.schema, images, holds_out=spec.holds_out),
        spec.schema,
        start,
        _with_fewer_threads(spec),
        recipe=replace(recipe, batch_size=smaller),
        now=time.monotonic,
        should_stop=should_stop,
        should_finish=should_finish,
        on_progress=on_progress,
        store=KeptMaps(spec.maps) if spec.maps else None,
    )
    if result.promoted:
        save_checkpoint(result.checkpoint, spec.output)
    return TrainedRound(result.promoted, result.checkpoint.fingerprint, result.report.to_record())


def _with_fewer_threads(spec: TrainingSpec) -> RoundSettings:
    """Each thread of torch keeps buffers of its own."""
    if not spec.halvings:
        return spec.settings
    n_threads = spec.settings.n_threads or torch.get_num_threads()
    return replace(spec.settings, n_threads=max(n_threads >> spec.halvings, 1))


def _listen(
    process: BaseProcess,
    pipe: Connection[Any, Any],
    on_progress: OnProgress,
    should_stop: Callable[[], bool],
    should_finish: Callable[[], bool],
) -> TrainedRound:
    asked_at: float | None = None
    is_finishing = False
    is_stopped = Stopped(process.pid)
    while True:
        if not is_finishing and should_finish():
            is_finishing = True
            with suppress(OSError):
                pipe.send("finish")
        if asked_at is None and should_stop():
            asked_at = time.monotonic()
            with suppress(OSError):
                pipe.send("stop")
        if asked_at is not None and time.monotonic() - asked_at > STOP_GRACE_S:
            process.kill()
            raise RoundCancelledError("the round was asked to stop; its process did not, and was killed")
        if is_stopped():
            process.kill()
            raise MachineError(
                "the training process was stopped (SIGSTOP) and did not go on, so it was ended: see who stops"
                " processes of this machine"
            )
        try:
            if not pipe.poll(POLL_S):
                continue
            kind, *values = pipe.recv()
        except (EOFError, OSError):
            process.join(STOP_GRACE_S)
            kind_of = OutOfMemoryError if process.exitcode == -signal.SIGKILL else MachineError
            raise kind_of(_describe_exit(process.exitcode)) from None
        if kind == "progress":
            on_progress(*values)
        elif kind == "done":
            return TrainedRound(*values)
        elif kind == "stopped":
            raise RoundCancelledError(values[0])
        else:
            raise troubles.to_error(troubles.Ending(*values))


def _describe_exit(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"the training process was ended by {name}{HINTS.get(-exitcode, '')}"
    if exitcode == fork_server.LOST_CODE:
        return "the training process and the one that it was forked from were ended"
    return f"the training process ended with code {exitcode}; the worker's log holds the cause"


def _do_nothing() -> None:
    """What `warm_up` runs."""


def _run_child(
    pipe: Connection[Any, Any], settings: Settings, image_factory: ImageFactory, spec: TrainingSpec
) -> None:
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)  # the worker decides, and tells us by the pipe
    step_back_process(LOWEST_PRIORITY if spec.is_patient else LOWER_PRIORITY)
    stop, finish = threading.Event(), threading.Event()
    threading.Thread(target=_obey, args=(pipe, {"stop": stop, "finish": finish}), daemon=True).start()
    try:
        fetch_encoder(settings)
        with patience(should_stop=stop.is_set):
            trained = train_here(spec, image_factory(settings), _Sender(pipe), stop.is_set, finish.is_set)
    except RoundCancelledError as error:
        pipe.send(("stopped", str(error)))
    except troubles.PASSING as error:
        _send_ending(pipe, error)
    except RuntimeError as error:  # torch's way to say that memory ran out, among other things
        if not troubles.is_memory(error):
            raise
        _send_ending(pipe, error)
    else:
        pipe.send(("done", trained.promoted, trained.fingerprint, trained.report))


def _send_ending(pipe: Connection[Any, Any], error: BaseException) -> None:
    ending = troubles.judge(error)
    pipe.send(("ended", ending.state, ending.cause, ending.trouble))


def _obey(pipe: Connection[Any, Any], wishes: Mapping[str, threading.Event]) -> None:
    try:
        while True:
            wishes[pipe.recv()].set()
    except (EOFError, OSError):
        # The worker is gone, and with it the lease: whatever we would still make, nobody may publish.
        os.kill(os.getpid(), signal.SIGKILL)


class _Sender:
    """Reports progress over the pipe, a few times a second."""

    def __init__(self, pipe: Connection[Any, Any]) -> None:
        self._pipe, self._last = pipe, 0.0

    def __call__(self, progress: float, eta_s: float | None) -> None:
        if time.monotonic() - self._last >= PROGRESS_EVERY_S:
            self._last = time.monotonic()
            self._pipe.send(("progress", progress, eta_s))
