"""The bench of hostile projects: who is hostile, and what counts as kept waiting."""

from __future__ import annotations

import pytest

from bench import hostile_project
from bench.fake_label_studio import API_KEY, FakeLabelStudio
from bench.fake_label_studio_app import build_app
from bench.hostile_project import BUSY_FROM, kind_of, make_hostile, to_result

HEADERS = {"Authorization": f"Token {API_KEY}"}


def test_only_hostile_projects_are_slow_endless_or_huge(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(hostile_project.time, "sleep", slept.append)
    monkeypatch.setattr(hostile_project, "HUGE_PX", 300)
    fake = FakeLabelStudio({1: 64, BUSY_FROM: 64})
    (ordinary,), hostile = fake.add_tasks(1, 1), fake.add_tasks(BUSY_FROM, 4)
    app = build_app(fake)
    make_hostile(app, fake)
    client = app.test_client()
    assert client.get("/api/projects/1", headers=HEADERS).status_code == 200
    assert client.get(f"/data/upload/1/{ordinary}.png", headers=HEADERS).data == fake.picture(ordinary)[0]
    assert slept == []
    assert client.get(f"/api/projects/{BUSY_FROM}", headers=HEADERS).status_code == 200
    assert client.get(f"/api/tasks/{hostile[0]}", headers=HEADERS).status_code == 200
    assert slept == [hostile_project.SLOW_S] * 2
    (huge,) = [task_id for task_id in hostile if kind_of(task_id) == "huge"]
    answer = client.get(f"/data/upload/{BUSY_FROM}/{huge}.png", headers=HEADERS)
    assert answer.data == hostile_project.huge_png(300)
    (endless, _) = [task_id for task_id in hostile if kind_of(task_id) == "trickling"]
    drops = client.get(f"/data/upload/{BUSY_FROM}/{endless}.png", headers=HEADERS).response
    assert [len(next(iter(drops))) for _ in range(3)] == [8, 1, 1]


@pytest.mark.parametrize(("beside_s", "call_s", "missed"), [(6.0, 9.0, 0), (7.0, 9.0, 1), (7.0, 101.0, 2)])
def test_a_goal_is_missed_where_others_wait_or_a_call_is_not_answered(
    beside_s: float, call_s: float, missed: int
) -> None:
    times = {
        "without it": [(True, 5.0), (False, 5.0)],
        "beside ordinary ones as busy": [(True, 9.0)],
        "beside hostile ones": [(True, beside_s), (False, beside_s)],
    }
    result = to_result(1, times, [0.1, call_s], ["project 101: idle"])
    assert [row[-1] for row in result.rows] == [1.0, 1.8, beside_s / 5.0]
    assert sum(not goal.met for goal in result.goals) == missed
    assert result.notes == ("project 101: idle",)
