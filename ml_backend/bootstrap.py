"""The one place that chooses implementations: settings in, a working learning loop out."""

from __future__ import annotations

from flask import Flask

from core.network.device import choose_compute
from ml_backend import jobs
from ml_backend.config import Settings
from ml_backend.learning_loop import LearningLoop
from ml_backend.outside import build_images, open_outside
from ml_backend.parts import Parts
from ml_backend.rounds.lease import name_owner
from ml_backend.rounds.round_process import ProcessTrainer
from ml_backend.web.app import create_app


def build_loop(settings: Settings) -> LearningLoop:
    """Put the learning loop together; any number of processes may do so with the same settings."""
    return LearningLoop(build_parts(settings))


def build_app(settings: Settings) -> Flask:
    """The web application around a learning loop of its own."""
    return create_app(build_loop(settings), settings)


def build_parts(settings: Settings) -> Parts:
    """Open the database, bring it up to date, and choose everything else.

    A `DEVICE` or an `ENGINE` that is not there ends the process at its start, with a `DeviceError`, and not
    some round.
    """
    choose_compute(settings.device, settings.engine)
    outside = open_outside(settings)
    outside.sweep()
    return Parts(
        settings=settings,
        database=outside.database,
        images=outside.images,
        label_studio=outside.servers.client,
        trainer=ProcessTrainer(settings, build_images),
        clock=outside.database.clock,
        owner=name_owner(),
        queue_problem=jobs.watch_queue(lambda: jobs.find_problem(settings)),
    )
