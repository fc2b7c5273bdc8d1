"""From pixels to what Label Studio is told: of pictures of one scene, one stays at the top."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from loop_fakes import Bench
from painted import make_picture

from core.asking.diversity import HELD_BACK
from ml_backend.storage import task_data

pytestmark = pytest.mark.integration

SAME_SCENE, OTHER = (21, 22, 23), 30


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_another_image_comes_before_the_second_picture_of_one_scene(service_backend: Any) -> None:
    bench = Bench(service_backend.settings(min_pixels_per_class=100))
    look = bench.images.open

    def open_image(project_id: int, task_id: int, data: Any) -> Any:
        if task_id not in SAME_SCENE:
            return look(project_id, task_id, data)
        scene = make_picture(SAME_SCENE[0])[0].astype(np.int16)
        return np.clip(scene + 2 * (task_id - SAME_SCENE[0]), 0, 255).astype(np.uint8)  # in another light

    bench.images.open = open_image  # type: ignore[method-assign]
    bench.submit(1, 2)
    version = bench.loop.run_round(1)
    assert version is not None
    for task_id in (*SAME_SCENE, OTHER):
        bench.server.add_task(task_id)
    with bench.parts.database.write() as connection:
        task_data.remember_tasks(connection, 1, list(bench.server.tasks.items()), bench.clock())
    bench.loop.sync_project_order(1)
    while bench.loop.score(1):
        pass
    bench.loop.push(1)
    found = told(bench, version)
    assert bench.loop.rank(1) > 0
    bench.loop.push(1)
    scores = told(bench, version)
    first, second, third = sorted(SAME_SCENE, key=lambda i: scores[i])
    assert scores[first] == found[first]
    assert scores[second] == pytest.approx(1 - HELD_BACK * (1 - found[second]))
    assert scores[third] == pytest.approx(1 - HELD_BACK**2 * (1 - found[third]))
    assert scores[OTHER] == found[OTHER]
    assert scores[OTHER] < scores[second]
    # Who opens a task is told the same, without another look at the image.
    bench.images.opened.clear()
    (answer,) = bench.loop.suggest(1, [bench.task(second)], None, float("inf"))
    assert answer is not None
    assert answer["score"] == scores[second]
    assert bench.images.opened == []
    ranked = [(row["score"], row["task"]) for row in bench.loop.ranked_tasks(1)]
    assert sorted(ranked) == sorted((score, task_id) for task_id, score in scores.items())
    assert [score for score, _ in ranked] == sorted(scores.values())
    bench.close()


def told(bench: Bench, version: str) -> dict[int, float]:
    """Scores that Label Studio has, one for each task."""
    rows = list(bench.server.predictions.values())
    assert len({task_id for task_id, _ in rows}) == len(rows)
    assert {prediction["model_version"] for _, prediction in rows} == {version}
    return {task_id: prediction["score"] for task_id, prediction in rows}
