"""The service's benchmark: what it times around a submit, and what it says of it."""

from __future__ import annotations

from typing import Any

import pytest

from bench import service_loop
from bench.fake_label_studio import FakeLabelStudio
from bench.service import Load, to_result
from bench.service_loop import Loop, interrupt

STATES = ["training", "refining", "refining", "refining", "queued", "training", "idle"]


class Acting:
    """A service whose project is in one state after the other, and that keeps what was posted."""

    def __init__(self) -> None:
        self.states, self.posted = list(STATES), list[tuple[str, str]]()

    def status(self, project_id: int) -> dict[str, Any]:
        return {"state": self.states.pop(0) if len(self.states) > 1 else self.states[0]}

    def post(self, path: str, body: Any) -> None:
        self.posted.append((path, self.states[0]))

    def wait_until_learnt(self, project_id: int, timeout_s: float) -> None:
        self.states = ["idle"]


def test_training_on_is_interrupted_by_a_submit_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REFINING_S", "POLL_S"):
        monkeypatch.setattr(service_loop, name, 0.0)
    acting: Any = Acting()
    fake = FakeLabelStudio({11: 64})
    assert interrupt(acting, fake, 11, fake.add_tasks(11, 2)) >= 0
    assert acting.posted == [("/webhook", "refining")] * 2
    assert acting.states == ["idle"]


def test_the_first_answer_and_the_end_of_training_on_have_rows_of_their_own() -> None:
    loop = Loop(draft=[4.0, 5.0], first=[22.0], later=[12.0], gave_way=[0.5])
    load = Load([0.01], [0.2], [0.004], 0, 168_000, 1.0)
    result = to_result(loop, {512: 1.5}, load)
    medians = {row[0].partition(",")[0]: row[2] for row in result.rows}
    assert medians["submit to the first prediction"] == 4.5
    assert medians["submit until training over known truth gives way"] == 0.5
    assert all(goal.met for goal in result.goals)
