"""Images of a round that was interrupted are fetched before it takes a place to train: that may take long."""

from __future__ import annotations

import logging
from collections.abc import Callable

from core.errors import ImageError
from ml_backend.parts import Parts
from ml_backend.processes.patience import is_over, patience
from ml_backend.rounds.lease import Lease
from ml_backend.storage import rounds
from ml_backend.training import TrainingSpec

log = logging.getLogger(__name__)

LONGEST_S = 60.0


def fetch_images(parts: Parts, lease: Lease, spec: TrainingSpec, should_stop: Callable[[], bool]) -> int:
    """See that the images are at hand, if the last round made no model; returns how many cannot be had."""
    project = lease.project
    with parts.database.read() as connection:
        before = rounds.list_interrupted(
            connection, project.project_id, project.train_requests, before=lease.number
        )
    if not before:
        return 0
    n_missing = 0
    with patience(LONGEST_S, should_stop):
        for example in spec.examples:
            if is_over():
                break
            try:
                parts.images.open(example.project_id, example.task_id, example.data)
            except ImageError as error:
                n_missing += 1
                log.debug(
                    "miss_image project=%d task=%d cause=%s", project.project_id, example.task_id, error
                )
    return n_missing
