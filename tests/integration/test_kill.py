"""`kill -9` of any process at any moment loses no annotation, and the next start goes on by itself."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from painted import SIDE_PX
from sending_label_studio import SendingLabelStudio
from service_backends import ServiceBackend
from services import Postgres, RedisServer, missing_services
from stack import Stack, children_of, is_alive, running_stack, wait_until
from stored_rows import list_trained

from core.rle import decode
from ml_backend.outside import connect
from ml_backend.storage import annotations, tasks
from ml_backend.storage.artifacts import Artifacts
from ml_backend.storage.projects import get_project

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3000)]

VICTIMS = ("worker in a round", "web", "both", "worker")
ONCE_EACH, DOZENS = VICTIMS, 6 * VICTIMS
SERVERS_TOO = {
    "sqlite": ("label studio", "worker in a round", "web", "worker", "both"),
    "postgres+redis": ("label studio", "database", "queue", "worker in a round", "web"),
}
ONLY_AT_WORK = ("worker in a round", "both")
"""On PostgreSQL, where a kill of an idle process or of the web alone is repeated by the dozens."""
FASTEST_POST_S, SLOWEST_POST_S = 0.1, 0.8
TASKS = 40
MINUTES = [pytest.mark.thorough, pytest.mark.slow(about_s=220)]


@pytest.mark.parametrize(
    ("service_backend", "victims"),
    [
        pytest.param("sqlite", ONCE_EACH, id="sqlite-a few", marks=pytest.mark.slow(about_s=45)),
        pytest.param("postgres+redis", ONLY_AT_WORK, id="postgres-a few", marks=pytest.mark.slow(about_s=35)),
        pytest.param("sqlite", DOZENS, id="sqlite-dozens", marks=MINUTES),
        pytest.param("postgres+redis", DOZENS, id="postgres-dozens", marks=MINUTES),
    ],
    indirect=["service_backend"],
)
def test_kills_in_a_loop_lose_no_annotation(
    service_backend: Any, tmp_path: Any, victims: tuple[str, ...]
) -> None:
    """Web, worker or both die at random moments while people submit, edit and delete."""
    rng = random.Random(7)
    environment = {**service_backend.environment(), "RECONCILE_EVERY_S": "5", "ROUND_BUDGET_S": "3"}
    with running_stack(tmp_path / "logs", environment) as stack:
        stack.start_web()
        stack.start_worker()
        stack.server.connect_backend()
        with people_painting(stack.server, random.Random(8)):
            for victim in rng.sample(victims, len(victims)):
                time.sleep(rng.uniform(0.2, 2.0))
                if victim == "worker in a round":
                    wait_until(lambda: is_training(stack), 180, "a round runs", stack.describe)
                kill(stack, victim)
                time.sleep(rng.uniform(0.0, 0.5))
                if not stack.workers:
                    stack.start_worker()
                if stack.web is None:
                    stack.start_web()
        expected = {row["id"]: row["updated_at"] for row in stack.server.annotations.values()}
        wait_until(
            lambda: is_settled(stack, len(expected)), 180, "all annotations are trained on", stack.describe
        )
        assert stack.server.lost_webhooks > 0, "nothing was posted while the web process was down"
        assert training_set(service_backend) == expected
        check_the_model_works(stack, task_id=900)


class Servers:
    """What the service talks to, and how each of it dies and comes back."""

    def __init__(self, stack: Stack, database: Postgres | None, queue: RedisServer | None) -> None:
        self._stack, self._mortals = stack, {"database": database, "queue": queue}

    def kill(self, victim: str) -> None:
        server = self._mortals.get(victim)
        if server:
            server.kill()
        else:
            self._stack.server.is_down = True

    def start(self, victim: str) -> None:
        server = self._mortals.get(victim)
        if server:
            server.start()
        self._stack.server.is_down = False


@pytest.mark.parametrize("name", ["sqlite", "postgres+redis"])
@pytest.mark.thorough
@pytest.mark.slow(about_s=240)
def test_servers_that_die_lose_no_annotation_either(name: str, tmp_path: Any) -> None:
    """Label Studio, the database and the queue die too, between kills of web and worker."""
    rng = random.Random(9)
    with ExitStack() as ends:
        backend, database, queue = start_servers(name, tmp_path, ends)
        environment = {**backend.environment(), "RECONCILE_EVERY_S": "5"}
        stack = ends.enter_context(running_stack(tmp_path / "logs", environment))
        servers = Servers(stack, database, queue)
        stack.start_web()
        stack.start_worker()
        stack.server.connect_backend()
        victims = SERVERS_TOO[name] * 4
        with people_painting(stack.server, random.Random(10)):
            for victim in rng.sample(victims, len(victims)):
                time.sleep(rng.uniform(0.2, 2.0))
                if victim in VICTIMS:
                    kill(stack, victim)
                else:
                    servers.kill(victim)
                time.sleep(rng.uniform(0.2, 3.0))
                if victim not in VICTIMS:
                    servers.start(victim)
                if not stack.workers:
                    stack.start_worker()
                if stack.web is None:
                    stack.start_web()
        expected = {row["id"]: row["updated_at"] for row in stack.server.annotations.values()}
        wait_until(
            lambda: is_settled_now(stack, len(expected)),
            180,
            "all annotations are trained on",
            stack.describe,
        )
        assert training_set(backend) == expected
        check_the_model_works(stack, task_id=900)
        assert not [path for path in backend.data_dir.rglob("scratch/*") if path.is_file()]
        below = [child for worker in stack.workers for child in children_of(worker.pid)]
        stack.stop()
        wait_until(lambda: not any(map(is_alive, below)), 60, "no process is left")


def start_servers(
    name: str, folder: Any, ends: ExitStack
) -> tuple[ServiceBackend, Postgres | None, RedisServer | None]:
    """A place for rows, queue and files; its servers are this test's own, and end with it."""
    if name == "sqlite":
        return ServiceBackend(name, folder / "data"), None, None
    if missing := missing_services():
        pytest.skip(missing)
    # Not pytest's folder: the path to it is closed to the user that PostgreSQL runs as.
    place = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="brushloop-mortal-")))
    place.chmod(0o755)
    database, queue = Postgres(place / "postgres"), RedisServer(place / "redis")
    for server in (database, queue):
        server.start()
        ends.callback(server.stop)
    return ServiceBackend(name, folder / "data", database.url, queue.url), database, queue


def is_settled_now(stack: Stack, n_expected: int) -> bool:
    """`is_settled`, while the database may still be on its way back."""
    try:
        return is_settled(stack, n_expected)
    except httpx.HTTPError:
        return False


def kill(stack: Stack, victim: str) -> None:
    """Kill, and see that no training outlives its worker."""
    below = [child for worker in stack.workers for child in children_of(worker.pid)]
    if victim != "web":
        stack.kill_workers()
        # Long, because a fork server that was just started finishes its imports before it looks.
        wait_until(lambda: not any(map(is_alive, below)), 60, "the worker's children are gone")
    if victim in ("web", "both"):
        stack.kill_web()


def is_training(stack: Stack) -> bool:
    try:
        return bool(stack.status()["state"] == "training")
    except httpx.HTTPError:
        return False


def is_settled(stack: Stack, n_expected: int) -> bool:
    status = stack.status()
    counts = status["annotations"]
    return status["state"] == "idle" and counts == {
        "received": n_expected,
        "trained": n_expected,
        "pending": 0,
    }


@contextmanager
def people_painting(server: SendingLabelStudio, rng: random.Random) -> Iterator[None]:
    """Submit, edit and delete all the time; whether the backend hears of it is not their business."""
    stop = threading.Event()

    def paint() -> None:
        number = 0
        while not stop.wait(rng.uniform(FASTEST_POST_S, SLOWEST_POST_S)):
            known = sorted(server.annotations)
            chance = rng.random()
            if chance < 0.1 and len(known) > 10:
                server.delete(rng.choice(known))
            elif chance < 0.3 and known:
                again = server.annotations[rng.choice(known)]
                server.submit_as(again["id"], again["task"], user_id=again["completed_by"])
            else:
                number += 1
                # Every person paints a task once, so that every annotation counts.
                server.submit_as(number, 1 + number % TASKS, user_id=1 + number // TASKS)

    thread = threading.Thread(target=paint)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def training_set(service_backend: Any) -> dict[int, str]:
    """Annotations in the truth that the last round saw, with their stamps; fails where one is there twice."""
    database = connect(service_backend.settings())
    with database.read() as connection:
        project = get_project(connection, 1)
        listed = [task for task in tasks.list_truth(connection, 1) if task.truth and task.truth["maps"]]
        stamps = {
            record.annotation_id: record.updated_at
            for task in listed
            for record in annotations.list_living(connection, 1, task.task_id)
        }
        trained = list_trained(connection, 1)
    database.close()
    used = Counter(annotation_id for task in listed for annotation_id in task.truth["annotation_ids"])
    assert set(used.values()) == {1}
    assert set(used) == set(trained)
    artifacts = Artifacts(service_backend.data_dir, project.folder)
    for task in listed:
        assert artifacts.load_truth(task.truth["maps"]).shape == (SIDE_PX, SIDE_PX)
    return {annotation_id: stamps[annotation_id] for annotation_id in used}


def check_the_model_works(stack: Stack, task_id: int) -> None:
    (prediction,) = stack.server.predict(task_id)
    assert prediction["model_version"] == stack.status()["model_version"]
    for region in prediction["result"]:
        if region["type"] == "brushlabels":
            assert decode(region["value"]["rle"], (SIDE_PX, SIDE_PX)).any()
