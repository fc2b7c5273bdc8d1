"""The bench of how long clicks take: what it asks, and which goals it judges."""

from __future__ import annotations

from typing import Any

import pytest

from bench.click_times import SMART_CONFIG, Clicked, TimesSettings, _context, _to_result
from bench.fake_label_studio import FakeLabelStudio
from ml_backend.label_studio.label_config import parse_label_config
from ml_backend.label_studio.prompts import read_prompt


def test_its_clicks_are_read_as_one_point_of_the_class() -> None:
    config = parse_label_config(SMART_CONFIG)
    asked = read_prompt(_context(20.0, 30.0, (64, 96)), config, (64, 96))
    assert asked is not None
    assert config.schema.names[asked.class_index] == "Nucleus"
    assert asked.prompt.positive == ((pytest.approx(20.0), pytest.approx(30.0)),)


def test_the_setup_of_a_fake_project_is_told_everywhere() -> None:
    fake = FakeLabelStudio({1: 64})
    fake.label_config = SMART_CONFIG
    (task_id,) = fake.add_tasks(1, 1)
    body = fake.paint(task_id, 1)
    assert fake.setup_body(1)["schema"] == SMART_CONFIG
    assert fake.predict_body(1, [task_id])["label_config"] == SMART_CONFIG
    assert body["project"]["label_config"] == SMART_CONFIG


def test_goals_compare_later_clicks_with_those_beside_a_round() -> None:
    def seen(first_s: float, later_s: float) -> tuple[Clicked, Clicked, list[float]]:
        return Clicked([first_s], 0.5), Clicked([later_s] * 4, 0.4), [1.0]

    found: dict[str, Any] = {"model": seen(0.5, 0.1), "model, beside a round": seen(2.0, 0.3)}
    result = _to_result({**found, "share of looks that saw training": 0.5}, TimesSettings())
    assert [goal.met for goal in result.goals] == [True, True, False]
    assert ("model: later", 4, 100.0, 100.0, 100.0, 100) in result.rows
    assert result.record["seconds"]["model"]["first"]["wall_s"] == [0.5]
