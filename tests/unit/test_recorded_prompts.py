"""What Label Studio 1.23.2 sent from Chromium for its smart tools, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from smart_setups import with_smart_rectangle

from core.prompts.lab_colours import to_colours
from core.prompts.segment import segment
from core.synthetic import make_image
from ml_backend.command.setup_project import read_default_config
from ml_backend.label_studio.label_config import parse_label_config
from ml_backend.label_studio.prompts import read_prompt

FIXTURES = Path(__file__).parents[1] / "fixtures" / "label_studio"
RECORDED: dict[str, Any] = json.loads((FIXTURES / "browser_smart_tools.requests.json").read_text())
SHAPE = (256, 256)


def test_a_recorded_click_is_one_positive_point_of_its_class() -> None:
    context = RECORDED["key_point"]["context"]
    asked = read_prompt(context, parse_label_config(read_default_config()), SHAPE)
    assert asked is not None
    assert asked.class_index == 1
    ((row, column),) = asked.prompt.positive
    assert (row, column) == pytest.approx((36.99, 60.92), abs=0.01)
    assert asked.prompt.negative == ()
    assert asked.prompt.box is None


def test_a_recorded_click_with_alt_held_corrects_the_one_before() -> None:
    context = RECORDED["alt_key_point"]["context"]
    asked = read_prompt(context, parse_label_config(read_default_config()), SHAPE)
    assert asked is not None
    assert (len(asked.prompt.positive), len(asked.prompt.negative)) == (1, 1)
    assert asked.prompt.negative[0][1] - asked.prompt.positive[0][1] == pytest.approx(14.87, abs=0.01)


def test_a_recorded_rectangle_asks_for_the_object_in_it() -> None:
    context = RECORDED["rectangle"]["context"]
    asked = read_prompt(context, parse_label_config(with_smart_rectangle()), SHAPE)
    assert asked is not None
    assert asked.class_index == 1
    assert (asked.prompt.positive, asked.prompt.negative) == ((), ())
    drawn, box = context["result"][0]["value"], asked.prompt.box
    assert box is not None
    sides = [
        drawn[name] * side / 100 for name, side in zip(("y", "x", "height", "width"), SHAPE * 2, strict=True)
    ]
    assert [box.top, box.left, box.height, box.width] == pytest.approx(sides, abs=1)


def test_a_recorded_rectangle_finds_the_object_that_it_was_drawn_around() -> None:
    asked = read_prompt(RECORDED["rectangle"]["context"], parse_label_config(with_smart_rectangle()), SHAPE)
    assert asked is not None
    image, instances = make_image("tissue", np.random.default_rng((11, 0)), SHAPE, 12)
    found = segment(to_colours(image), asked.prompt)
    assert found is not None
    truth = instances == np.argmax(np.bincount(instances.ravel())[1:]) + 1
    mask = np.zeros(SHAPE, bool)
    mask[found.box.slices] = found.mask
    assert np.count_nonzero(mask & truth) / np.count_nonzero(mask | truth) > 0.7
