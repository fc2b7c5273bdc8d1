"""From a submit to the first prediction, to one that has learnt from it, to the end of training on."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
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
        drafted = threading.Thread(
            target=lambda: loop.draft.append(wait_for_an_answer(service, fake, project_id, unseen))  # noqa: B023
        )
        drafted.start()
        for n in range(1 + LATER_ROUNDS):
            own = tasks[SUBMITS * n : SUBMITS * (n + 1)]
            (loop.later if n else loop.first).append(submit_and_wait(service, fake, project_id, own, unseen))
        drafted.join()
        loop.gave_way.append(interrupt(service, fake, project_id, tasks[-SUBMITS:]))
    return loop


def wait_for_an_answer(service: Service, fake: FakeLabelStudio, project_id: int, unseen: int) -> float:
    """Seconds from the last submit before it until `/predict` has anything to say."""
    while service.status(project_id)["annotations"]["received"] < SUBMITS:
        time.sleep(POLL_S)
    submitted = time.monotonic()
    while not service.status(project_id)["model_version"]:
        time.sleep(POLL_S)
    if not service.post("/predict", fake.predict_body(project_id, [unseen]))["results"][0]:
        raise RuntimeError(f"project {project_id} has a model and no prediction")
    return time.monotonic() - submitted


def interrupt(service: Service, fake: FakeLabelStudio, project_id: int, tasks: Sequence[int]) -> float:
    """Seconds until training that goes on over known truth gives way to a submit."""

    def wait_while(is_refining: bool) -> None:
        deadline = time.monotonic() + ROUND_TIMEOUT_S
        while (service.status(project_id)["state"] == "refining") == is_refining:
            if time.monotonic() > deadline:
                raise RuntimeError(f"project {project_id}: {service.status(project_id)}")
            time.sleep(POLL_S)

    wait_while(False)
    time.sleep(REFINING_S)
    for task_id in tasks:
        submitted = time.monotonic()
        service.post("/webhook", fake.paint(task_id, OBJECTS_PER_SUBMIT))
    wait_while(True)
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
    """Submit annotations, and wait until `/predict` answers with a model that accounts for them."""
    bodies = [fake.paint(task_id, n_objects) for task_id in tasks]
    for body in bodies:
        submitted = time.monotonic()
        service.post("/webhook", body)
    service.wait_until_learnt(project_id, timeout_s)
    entry = service.post("/predict", fake.predict_body(project_id, [unseen]))["results"][0]
    if not entry or entry["model_version"] != service.status(project_id)["model_version"]:
        raise RuntimeError(f"project {project_id} has no prediction of its current model: {str(entry)[:200]}")
    return time.monotonic() - submitted
