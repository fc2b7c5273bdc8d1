"""From a submit to the first prediction, to one that has learnt from it, to the end of training on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.fake_label_studio import FakeLabelStudio
from bench.http_calls import POLL_S, Service

LOOP_PROJECTS, LATER_ROUNDS = (11, 12, 13), 4

SUBMITS, OBJECTS_PER_SUBMIT = 3, 14
"""Quick submits that make one round; together they open the gate of 5000 pixels per class."""

REFINING_S = 3.0
"""So long training goes on over known truth before somebody paints again."""

ROUND_TIMEOUT_S = 180.0


@dataclass
class Loop:
    """Seconds from a submit to what it leads to.

    Attributes
    ----------
    draft : to the first prediction of all, by a draft
    first, later : to a prediction by a model that accounts for it, the first one and later ones
    gave_way : to the end of a training that went on over what was known before
    """

    draft: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    later: list[float] = field(default_factory=list)
    gave_way: list[float] = field(default_factory=list)


def measure_loop(service: Service, fake: FakeLabelStudio) -> Loop:
    loop = Loop()
    for project_id in LOOP_PROJECTS:
        service.post("/setup", fake.setup_body(project_id))
        tasks = fake.add_tasks(project_id, SUBMITS * (2 + LATER_ROUNDS) + 1)
        unseen = tasks.pop()
        submitted = submit(service, fake, tasks[:SUBMITS])
        wait_until(lambda: bool(service.status(project_id)["model_version"]))  # noqa: B023
        predict(service, fake, project_id, unseen)
        loop.draft.append(time.monotonic() - submitted)
        service.wait_until_learnt(project_id, ROUND_TIMEOUT_S)
        predict(service, fake, project_id, unseen)
        loop.first.append(time.monotonic() - submitted)
        for n in range(1, 1 + LATER_ROUNDS):
            own = tasks[SUBMITS * n : SUBMITS * (n + 1)]
            loop.later.append(submit_and_wait(service, fake, project_id, own, unseen))
        loop.gave_way.append(interrupt(service, fake, project_id, tasks[-SUBMITS:]))
    return loop


def interrupt(service: Service, fake: FakeLabelStudio, project_id: int, tasks: Sequence[int]) -> float:
    """Seconds until training that goes on over known truth gives way to a submit."""

    def is_refining() -> bool:
        return bool(service.status(project_id)["state"] == "refining")

    wait_until(is_refining)
    time.sleep(REFINING_S)
    submitted = submit(service, fake, tasks)
    wait_until(lambda: not is_refining())
    gave_way_s = time.monotonic() - submitted
    service.wait_until_learnt(project_id, ROUND_TIMEOUT_S)
    return gave_way_s


def submit_and_wait(
    service: Service,
    fake: FakeLabelStudio,
    project_id: int,
    tasks: Sequence[int],
    unseen: int,
    n_objects: int = OBJECTS_PER_SUBMIT,
    timeout_s: float = ROUND_TIMEOUT_S,
) -> float:
    """Seconds from the last submit until `/predict` answers with a model that accounts for all of them."""
    submitted = submit(service, fake, tasks, n_objects)
    service.wait_until_learnt(project_id, timeout_s)
    predict(service, fake, project_id, unseen)
    return time.monotonic() - submitted


def submit(
    service: Service, fake: FakeLabelStudio, tasks: Sequence[int], n_objects: int = OBJECTS_PER_SUBMIT
) -> float:
    """Submit annotations; when the last one was, on the clock of `time.monotonic`."""
    bodies = [fake.paint(task_id, n_objects) for task_id in tasks]
    for body in bodies:
        submitted = time.monotonic()
        service.post("/webhook", body)
    return submitted


def predict(service: Service, fake: FakeLabelStudio, project_id: int, task_id: int) -> None:
    """Ask for a prediction; raises RuntimeError where none by the project's current model comes."""
    entry = service.post("/predict", fake.predict_body(project_id, [task_id]))["results"][0]
    if not entry or entry["model_version"] != service.status(project_id)["model_version"]:
        raise RuntimeError(f"project {project_id} has no prediction of its current model: {str(entry)[:200]}")


def wait_until(is_so: Callable[[], bool], timeout_s: float = ROUND_TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing came of it in {timeout_s:.0f} s")
        time.sleep(POLL_S)
