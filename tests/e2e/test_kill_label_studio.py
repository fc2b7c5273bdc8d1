"""The real Label Studio is killed again and again, and the worker too: nothing painted is lost or doubled."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from running_services import Backend, RealLabelStudio, launch_label_studio, run_backend, start_again
from stack import wait_until
from stored_rows import list_trained

from bench.painted_results import paint_objects
from core.synthetic import make_image
from ml_backend.config import Settings
from ml_backend.errors import LabelStudioError
from ml_backend.outside import connect
from ml_backend.storage import tasks

N_IMAGES, SHAPE, N_OBJECTS = 8, (128, 128), 8
N_KILLS = 6
SETTINGS = {
    "MIN_PIXELS_PER_CLASS": "200",
    "QUIET_TIME_S": "0.5",
    "LEARNERS": "network",
    "ROUND_STEPS": "20",
    "RECONCILE_EVERY_S": "5",
    "TRAINING_THREADS": "1",
    "PREDICT_THREADS": "1",
}


@pytest.mark.thorough
@pytest.mark.slow(about_s=300)
def test_kills_of_the_real_label_studio_lose_no_annotation(tmp_path: Path) -> None:
    rng = random.Random(11)
    folder = tmp_path / "label-studio"
    truths = draw_images(tmp_path / "images")
    server = launch_label_studio(folder)
    try:
        with run_backend(server, tmp_path / "brushloop", **SETTINGS) as backend:
            backend.command("setup", "--title", "Kills", "--images", str(tmp_path / "images"))
            project_id, task_ids = server.find_tasks("Kills")
            with painting(server, task_ids, truths, random.Random(12)):
                for number in range(N_KILLS):
                    time.sleep(rng.uniform(1, 8))
                    server.kill()
                    if number % 2:
                        kill_workers(backend)
                    time.sleep(rng.uniform(0, 4))
                    server = start_again(server, folder)
                time.sleep(5)
            painted = list_annotations(server, task_ids)
            assert len(painted) >= 3, "a slow machine painted too little to tell"
            backend.wait_until_learnt(project_id, len(painted))
            wait_until(
                lambda: is_in_order(server, backend, project_id, task_ids), 180, "all is sent",
                lambda: str(backend.get(f"/api/projects/{project_id}/status")),
            )  # fmt: skip
            status = backend.get(f"/api/projects/{project_id}/status")
        assert status["annotations"] == {"received": len(painted), "trained": len(painted), "pending": 0}
        check_rows(tmp_path / "brushloop" / "data", project_id, painted)
    finally:
        server.stop()


def draw_images(folder: Path) -> list[Any]:
    """Images to upload; their objects, in the order of their names."""
    folder.mkdir()
    drawn = [make_image("tissue", np.random.default_rng((7, n)), SHAPE, N_OBJECTS) for n in range(N_IMAGES)]
    for number, (image, _) in enumerate(drawn):
        Image.fromarray(image).save(folder / f"tissue-{number:02}.png")
    return [instances for _, instances in drawn]


@contextmanager
def painting(
    server: RealLabelStudio, task_ids: list[int], truths: list[Any], rng: random.Random
) -> Iterator[None]:
    """Submit, edit and delete all the time; what a server that is away refuses was never painted."""
    stop = threading.Event()

    def paint() -> None:
        while not stop.wait(rng.uniform(0.3, 2.0)):
            n = rng.randrange(N_IMAGES)
            with suppress(LabelStudioError):
                change(server, task_ids[n], paint_objects(truths[n], rng.randint(3, N_OBJECTS)), rng)

    thread = threading.Thread(target=paint)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def change(server: RealLabelStudio, task_id: int, result: list[dict[str, Any]], rng: random.Random) -> None:
    request = server.connection.request
    known = [row["id"] for row in request("GET", f"/api/tasks/{task_id}")["annotations"]]
    chance, body = rng.random(), {"result": result, "lead_time": 9.0}
    if known and chance < 0.1:
        request("DELETE", f"/api/annotations/{known[0]}/")
    elif known and chance < 0.6:
        request("PATCH", f"/api/annotations/{known[0]}/", json=body)
    else:
        request("POST", f"/api/tasks/{task_id}/annotations/", json=body)


def kill_workers(backend: Backend) -> None:
    for pid in backend.list_workers():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def list_annotations(server: RealLabelStudio, task_ids: list[int]) -> list[int]:
    """What the real server holds: whatever it took counts."""
    rows = [server.connection.request("GET", f"/api/tasks/{task_id}")["annotations"] for task_id in task_ids]
    return [int(row["id"]) for of_task in rows for row in of_task]


def is_in_order(server: RealLabelStudio, backend: Backend, project_id: int, task_ids: list[int]) -> bool:
    """Whether each task has one prediction, of the current version."""
    status = backend.get(f"/api/projects/{project_id}/status")
    sent = [
        server.connection.request("GET", "/api/predictions/", params={"task": task_id})
        for task_id in task_ids
    ]
    held = [[row["model_version"] for row in rows] for rows in sent]
    return bool(status["in_order"]) and held == [[status["model_version"]]] * len(task_ids)


def check_rows(data_dir: Path, project_id: int, painted: list[int]) -> None:
    """Each annotation is trained on once, and nothing unfinished is left."""
    database = connect(Settings(data_dir=data_dir))
    with database.read() as connection:
        trained = list_trained(connection, project_id)
        listed = tasks.list_truth(connection, project_id)
    database.close()
    used = [number for task in listed if task.truth for number in task.truth["annotation_ids"]]
    assert sorted(trained) == sorted(used) == sorted(painted)
    assert [path for path in data_dir.rglob("scratch/*") if path.is_file()] == []
