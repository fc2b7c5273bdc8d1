"""Rounds of every kind from their first line to their last: the lease, the training, the outcome."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from core.errors import RoundCancelledError
from ml_backend.errors import LabelConfigError
from ml_backend.label_studio.label_config import LabelConfig, find_config
from ml_backend.parts import Parts
from ml_backend.rounds import continuing, publishing, troubles
from ml_backend.rounds.fetching import fetch_images
from ml_backend.rounds.lease import Lease, LeaseLostError, take_lease
from ml_backend.rounds.readable import keep_readable
from ml_backend.rounds.sweeping import sweep
from ml_backend.storage.projects import Project, get_project
from ml_backend.strokes.build_truth import build_changed
from ml_backend.strokes.damaged_truth import rebuild_damaged
from ml_backend.strokes.reconcile import reconcile_project
from ml_backend.training import TrainingSpec

log = logging.getLogger(__name__)


class Rounds:
    """Runs one round at a time; each method returns the version that it published, or None."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def run(self, project_id: int, should_stop: Callable[[], bool]) -> str | None:
        """A round that accounts for all truth there is."""
        return self._lead(take_lease(self._parts, project_id, should_stop), self._run)

    def draft(self, project_id: int, should_stop: Callable[[], bool]) -> str | None:
        """A draft: what the quick learners give within a few seconds."""
        return self._lead(take_lease(self._parts, project_id, should_stop, "draft"), self._run_draft)

    def go_on(self, project_id: int, should_stop: Callable[[], bool]) -> str | None:
        """Train on over the truth of the last round."""
        with self._parts.database.read() as connection:
            project = get_project(connection, project_id)
        gives_way = continuing.give_way(self._parts, project)
        lease = take_lease(self._parts, project_id, should_stop, "continuation", gives_way)
        return self._lead(lease, self._continue)

    def _lead(self, lease: Lease | None, story: Callable[[Lease], str | None]) -> str | None:
        """Run a round, of whatever kind, to its end, and record how it ended."""
        if lease is None:
            return None
        project_id = lease.project.project_id
        log.info("start_round project=%d round=%d kind=%s", project_id, lease.number, lease.kind)
        version: str | None = None
        ending: troubles.Ending | None = troubles.UNEXPECTED
        try:
            with lease:
                version = story(lease)
            ending = None
        except LeaseLostError:
            ending = None
            log.warning("lose_round project=%d round=%d", project_id, lease.number)
        except troubles.PASSING as error:
            ending = troubles.judge(error, is_cancelled=lease.is_cancelled)
            if isinstance(error, RoundCancelledError) and lease.should_finish() and not lease.should_stop():
                ending = None
                continuing.forget_round(self._parts, lease)
        finally:
            if ending:
                publishing.give_up(self._parts, lease, ending)
        return version

    def _run(self, lease: Lease) -> str | None:
        """The steps of a round, in order."""
        reconciled = reconcile_project(self._parts, lease.project, painted_only=True)
        project, config = self._find_usable(lease.project.project_id)
        keep_readable(self._parts, project)
        build_changed(self._parts, project, config, lease.should_stop)
        rebuild_damaged(self._parts, project, config, lease.should_stop)
        if lease.should_stop():
            raise RoundCancelledError("stopped before the training began")
        return self._train(lease, lambda spec: spec, lease.should_stop, reconciled.problem)

    def _run_draft(self, lease: Lease) -> str | None:
        """Nothing is fetched first: what is built is enough for a draft, and it shall be quick."""
        settings = self._parts.settings
        return self._train(lease, lambda spec: continuing.to_draft(spec, settings), lease.should_stop)

    def _continue(self, lease: Lease) -> str | None:
        with self._parts.database.read() as connection:
            project = get_project(connection, lease.project.project_id)
            budget_s = continuing.plan_continuation(
                connection, project, self._parts.settings, self._parts.clock(), lease.number
            )
        if budget_s is None:  # somebody came first
            continuing.forget_round(self._parts, lease)
            return None
        began = time.monotonic()

        def should_stop() -> bool:
            too_early = lease.should_finish() and time.monotonic() - began < continuing.WORTH_S
            return lease.should_stop() or too_early

        return self._train(
            lease, lambda spec: continuing.to_continuation(spec, budget_s, lease.number), should_stop
        )

    def _train(
        self,
        lease: Lease,
        change: Callable[[TrainingSpec], TrainingSpec],
        should_stop: Callable[[], bool],
        note: str | None = None,
    ) -> str | None:
        project, config = self._find_usable(lease.project.project_id)
        snapshot = publishing.take_snapshot(self._parts, project, config.schema)
        lease.truth_seq = snapshot.truth_seq
        halvings = publishing.count_halvings(self._parts, lease)
        spec = change(publishing.write_spec(self._parts, project, config, snapshot, halvings))
        try:
            fetch_images(self._parts, lease, spec, should_stop)
            trained = self._parts.trainer(spec, lease.report_progress, should_stop, lease.should_finish)
            version = publishing.publish_patiently(self._parts, lease, spec, snapshot, trained, note)
        finally:
            self._parts.artifacts(project).discard(spec.output)
        log.info(
            "finish_round project=%d round=%d model_version=%s promoted=%s examples=%d",
            project.project_id,
            lease.number,
            version,
            trained.promoted,
            len(spec.examples),
        )
        sweep(self._parts, lease.project)
        return version

    def _find_usable(self, project_id: int) -> tuple[Project, LabelConfig]:
        with self._parts.database.read() as connection:
            project = get_project(connection, project_id)
        config, problem = find_config(project.label_config)
        if config is None:
            raise LabelConfigError(str(problem))
        return project, config
