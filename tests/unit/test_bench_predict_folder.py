"""The bench of a folder of images: what is counted, what is compared, and when memory is looked at."""

from __future__ import annotations

import click
import pytest

from bench import Options
from bench.predict_folder import FILES, NETWORK, OVERLAYS, Course, Way, go_through, read_widths, run


def test_every_so_many_th_image_goes_all_ways_and_the_first_one_is_not_counted() -> None:
    asked: list[tuple[str, int]] = []
    files, other = (Way(name, lambda n, name=name: asked.append((name, n))) for name in ("files", "other"))  # type: ignore[misc]
    go_through(files, (other,), Course(7), every=3)
    assert [n for name, n in asked if name == "files"] == list(range(7))
    assert [n for name, n in asked if name == "other"] == [0, 3, 6]
    assert (files.images, other.images) == (6, 2)


def test_memory_is_looked_at_once_it_has_settled_and_after_each_quarter() -> None:
    course = Course(40)
    for n_done in range(1, 41):
        course.look(n_done)
    assert [stage.images for stage in course.stages] == [4, 10, 20, 30, 40]
    assert all(0 < stage.resident_mb <= stage.peak_mb for stage in course.stages)


def test_it_predicts_a_drawn_folder_all_ways() -> None:
    result = run(Options(arguments=("--images", "10", "--size", "64", "--beside", "3", "--widths", "2,4")))
    ways = {way["name"]: way for way in result.record["ways"]}
    assert {name: way["images"] for name, way in ways.items()} == {NETWORK: 3, FILES: 9, OVERLAYS: 3}
    assert all(way["cpu_s"] > 0 for way in ways.values())
    assert result.rows[0][-1] == pytest.approx(1)
    assert [stage["images"] for stage in result.record["memory"]] == [2, 5, 7, 10]
    assert len(result.goals) == 2


def test_widths_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(click.BadParameter, match="wide"):
        read_widths("wide")
