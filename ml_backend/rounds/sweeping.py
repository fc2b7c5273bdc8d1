"""What nobody needs any more is removed: at the end of each round, and by time while none runs."""

from __future__ import annotations

from ml_backend.parts import Parts
from ml_backend.storage import expiry, models, rounds, tasks
from ml_backend.storage.projects import Project, still_exists


def sweep_at_rest(parts: Parts, project: Project) -> None:
    """Remove old files and expired rows while no round runs: rounds that end badly leave them too.

    A round that begins meanwhile reads what rows name, and all else that it reads is younger.
    """
    with parts.database.read() as connection:
        is_running = rounds.find_running(connection, project.project_id) is not None
    if is_running:
        return
    sweep(parts, project)
    with parts.database.write() as connection:
        expiry.drop_expired(connection, project.project_id, parts.clock())


def sweep(parts: Parts, project: Project) -> None:
    """Remove the files that no row names any more; for the holder of the lease, or while nobody holds it."""
    with parts.database.read() as connection:
        if not still_exists(connection, project):
            return  # another project got its number
        listed = tasks.list_truth(connection, project.project_id)
        folders = models.list_folders(connection, project.project_id)
        dropped = models.list_dropped(connection, project.project_id)
        last = max(
            rounds.last_number(connection, project.project_id) or 0,
            models.last_round(connection, project.project_id),
        )
    names = [str(task.truth["maps"]) for task in listed if task.truth]
    parts.artifacts(project).sweep(set(names), folders, last, dropped)
