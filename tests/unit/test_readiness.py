"""When a project is ready to train, and what the annotator is told."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import core.truth.label_map
from core.painting import BrushRegion, Finding, Origin, Painting
from core.schema import LabelClass, LabelSchema
from core.truth.label_map import build_label_map
from core.truth.readiness import (
    ADVISED_OBJECTS,
    LINT_CODES,
    assess,
    count_truth,
    lint_label_map,
    lint_painting,
)
from core.truth.thin_strokes import lint_thin_strokes

SCHEMA = LabelSchema.of("Background", "Nucleus", "Cell")


def region(class_index: int, mask: NDArray[np.uint8], origin: Origin = "manual") -> BrushRegion:
    return BrushRegion(f"{class_index}{origin}", class_index, origin, 0, 0, mask * np.uint8(255))


def drawn(*shapes: tuple[str, tuple[int, int], tuple[int, int] | int]) -> NDArray[np.uint8]:
    canvas = np.zeros((120, 120), np.uint8)
    for kind, first, second in shapes:
        if kind == "disc" and isinstance(second, int):
            cv2.circle(canvas, first, second, 1, -1)
        elif isinstance(second, tuple):
            cv2.line(canvas, first, second, 1, 5)
    return canvas


def lint(
    *regions: BrushRegion, schema: LabelSchema = SCHEMA, findings: tuple[Finding, ...] = ()
) -> list[str]:
    painting = Painting((120, 120), regions, findings=findings)
    partial = build_label_map(painting, schema, {})
    found = (*lint_painting(painting, partial, schema), *lint_label_map(partial.label_map, schema))
    assert all(finding.code in LINT_CODES and finding.message for finding in found)
    return [finding.code for finding in found]


# The gate


def test_each_painted_object_class_needs_its_pixels() -> None:
    readiness = assess([(900, 0), (5000, 7), (4999, 3)], SCHEMA, 5000)
    assert not readiness.ready
    assert readiness.missing.startswith("Cell needs 1 more pixels (4999 of 5000), about 1 object as large")
    assert assess([(900, 0), (5000, 7), (5000, 3)], SCHEMA, 5000).ready


def test_background_and_classes_that_nobody_painted_are_not_required() -> None:
    assert assess([(1, 0), (5000, 7), (0, 0)], SCHEMA, 5000).ready
    assert assess([(0, 0), (5000, 7), (5000, 1)], SCHEMA, 5000).ready


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([(0, 0), (0, 0), (0, 0)], "Nothing is painted"),
        ([(0, 0), (9000, 80), (0, 0)], "Only Nucleus is painted: paint some Background or Cell too"),
        ([(9000, 0), (0, 0), (0, 0)], "Only Background is painted"),
    ],
)
def test_two_classes_must_have_pixels(counts: list[tuple[int, int]], words: str) -> None:
    readiness = assess(counts, SCHEMA, 5000)
    assert not readiness.ready
    assert words in readiness.missing


def test_the_number_of_objects_is_advice_and_blocks_nothing() -> None:
    readiness = assess([(900, 0), (5000, 1), (0, 0)], SCHEMA, 5000)
    assert readiness.ready
    assert [c.advised_objects for c in readiness.classes] == [ADVISED_OBJECTS] * 3 == [50] * 3


def test_the_status_says_what_each_class_has_and_needs() -> None:
    ground, nucleus, _ = assess([(900, 0), (12, 1), (0, 0)], SCHEMA, 5000).classes
    assert (ground.name, ground.role, ground.pixels, ground.needed_pixels) == (
        "Background",
        "background",
        900,
        0,
    )
    assert (nucleus.role, nucleus.pixels, nucleus.objects, nucleus.needed_pixels) == ("object", 12, 1, 5000)


def test_counts_must_fit_the_schema() -> None:
    with pytest.raises(ValueError, match="3 classes"):
        assess([(1, 1)], SCHEMA, 5000)


def test_objects_are_counted_as_components() -> None:
    label_map = np.array([[0, 0, 1, 1, 255, 1], [2, 0, 255, 255, 255, 255]], np.uint8)
    assert count_truth(label_map, SCHEMA) == ((3, 0), (3, 2), (1, 1))


# Lint


def test_a_class_more_than_100_times_larger_than_another_is_reported() -> None:
    (finding,) = assess([(50_100, 0), (500, 7), (0, 0)], SCHEMA, 1).lint
    assert finding.code == "class-imbalance"
    assert "Background has 100 times" in finding.message
    assert assess([(50_000, 0), (500, 7), (0, 0)], SCHEMA, 1).lint == ()


def test_lint_of_the_images_is_passed_on() -> None:
    finding = Finding("unlabelled-region", "A magic wand region.")
    assert assess([(1, 0), (1, 1), (0, 0)], SCHEMA, 1, [finding]).lint == (finding,)


def test_what_was_remarked_on_reading_is_passed_on() -> None:
    codes = ("unlabelled-region", "unknown-label", "size-mismatch", "rotated-region")
    assert lint(findings=tuple(Finding(code, "A sentence.") for code in codes)) == list(codes)


def test_overlapping_classes_and_objects_without_a_gap_are_reported() -> None:
    ground = region(0, np.ones((120, 120), np.uint8))
    one, other = drawn(("disc", (30, 30), 12)), drawn(("disc", (52, 30), 12))
    assert lint(ground, region(1, one), region(2, other)) == ["overlapping-classes"]
    assert lint(ground, region(1, one), region(1, other)) == ["objects-without-gap"]


def test_an_object_without_background_near_it_is_reported() -> None:
    near, far = drawn(("disc", (30, 30), 9)), drawn(("disc", (90, 90), 9))
    ground = drawn(("disc", (30, 30), 14))
    assert lint(region(0, ground), region(1, near), region(1, far)) == ["no-background-near"]
    assert lint(region(0, ground), region(1, near)) == []
    assert lint(region(1, near)) == ["no-background-near"]


def test_projects_without_background_are_not_asked_for_it() -> None:
    assert lint(region(0, drawn(("disc", (30, 30), 9))), schema=LabelSchema.of("A", "B")) == []


def test_a_lone_crack_is_not_told_to_be_painted_otherwise() -> None:
    crack = region(1, drawn(("line", (5, 5), (110, 100))))
    (finding,) = lint_thin_strokes(Painting((120, 120), (crack,)), SCHEMA)
    assert "as a crack or a fibre is, it is right" in finding.message


def test_long_thin_strokes_in_an_object_class_are_scribbles() -> None:
    scribble = drawn(("line", (5, 5), (110, 100)))
    whole = drawn(("disc", (30, 30), 15), ("disc", (80, 30), 15), ("disc", (80, 80), 15))
    ground = region(0, np.ones((120, 120), np.uint8))
    assert lint(ground, region(1, scribble)) == ["scribble"]
    assert lint(ground, region(1, whole)) == []
    assert lint(region(0, scribble)) == []
    predicted = region(1, scribble, origin="prediction")
    assert lint(ground, predicted) == ["background-over-prediction", "untouched-prediction"]


def test_an_outline_is_a_scribble_unless_autofill_fills_it() -> None:
    outline = np.zeros((120, 120), np.uint8)
    cv2.circle(outline, (60, 60), 40, 1, 3)
    ground = region(0, np.ones((120, 120), np.uint8))
    filled = LabelSchema((LabelClass("Background", "background"), LabelClass("Nucleus", autofill=True)))
    assert lint(ground, region(1, outline)) == ["scribble"]
    assert lint(ground, region(1, outline), schema=filled) == []


def test_every_code_is_in_kebab_case_and_every_code_of_the_core_is_in_the_table() -> None:
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in LINT_CODES)
    folder = Path(core.truth.label_map.__file__).parent
    used = {
        code
        for path in folder.glob("*.py")
        for code in re.findall(r'Finding\(\s*"([^"]+)"', path.read_text())
    }
    assert used
    assert used <= set(LINT_CODES)


def test_a_net_is_no_scribble_and_its_pieces_are_not_counted() -> None:
    net = drawn(("line", (5, 5), (115, 5)), ("line", (5, 60), (115, 60)), ("line", (5, 115), (115, 115)))
    net |= net.T
    assert lint(region(0, np.ones((120, 120), np.uint8)), region(1, net)) == ["net-like"]
    strokes = []
    for at in (5, 60, 115):
        across = np.zeros((120, 120), np.uint8)
        across[at : at + 3, 5:118] = 1
        strokes += [region(1, across), region(1, across.T)]
    found = lint(region(0, np.ones((120, 120), np.uint8)), *strokes)
    assert "net-like" in found
    assert "scribble" not in found
    readiness = assess([(9000, 0), (4000, 3), (0, 0)], SCHEMA, 5000, nets={SCHEMA.names[1]})
    assert readiness.classes[1].advised_objects == 0
    assert "object" not in readiness.missing
