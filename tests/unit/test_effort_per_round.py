"""From annotations to a round's effort: what they started from, what they took, and what they changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loop_fakes import Bench, make_bench
from painted import LABEL_CONFIG, brush, make_picture, paint_all

from core.schema import IGNORE_INDEX
from core.truth.label_map import SentMask, build_label_map
from ml_backend.label_studio.label_config import parse_label_config
from ml_backend.label_studio.paintings import parse_painting
from ml_backend.label_studio.payloads import parse_task, parse_webhook
from ml_backend.ports import AnnotationRecord, SentRegion
from ml_backend.storage import sent_regions
from ml_backend.storage.efforts import OpenEffort
from ml_backend.strokes.effort import Measured, find_start, measure, sum_up

RECORDED = Path(__file__).parents[1] / "fixtures" / "label_studio"
CONFIG = parse_label_config(LABEL_CONFIG)
SHAPE = (4, 8)
OLD, NEW = "r0001-aaaaaaaa", "r0002-bbbbbbbb"


def mask(*columns: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whole columns of a small image."""
    painted = np.zeros(SHAPE, bool)
    painted[:, columns] = True
    return painted


def sent(region_id: str, version: str = NEW, *columns: int) -> SentRegion:
    return SentRegion(region_id, "Nucleus", version, 0, 0, mask(*columns))


def rectangle(label: str, origin: str = "prediction", x: float = 0, width: float = 50) -> dict[str, Any]:
    value = {"x": x, "y": 0, "width": width, "height": 100, "rotation": 0, "rectanglelabels": [label]}
    return {
        "id": f"{label}{x}", "type": "rectanglelabels", "from_name": "uncertain", "to_name": "image",
        "original_width": 8, "original_height": 4, "image_rotation": 0, "origin": origin, "value": value,
    }  # fmt: skip


def submitted(
    *result: Mapping[str, Any], lead_time: float | None = 5.0, parent: bool = True
) -> AnnotationRecord:
    return AnnotationRecord(1, 10, 1, "1", False, list(result), lead_time, parent)


def take(record: AnnotationRecord, *regions: SentRegion, known: Mapping[str, Any] | None = None) -> Measured:
    painting = parse_painting(record.result, CONFIG, SHAPE)
    masks = {r.region_id: SentMask(1, r.top, r.left, r.mask) for r in regions}
    newest = regions[-1].model_version if regions else None
    return measure(
        record, painting, CONFIG, regions, masks, find_start(record, CONFIG, regions, newest, known)
    )


def teach(record: AnnotationRecord, *regions: SentRegion) -> list[str]:
    """The label map's columns: `.` unlabelled, `b` Background, `n` Nucleus."""
    masks = {r.region_id: SentMask(1, r.top, r.left, r.mask) for r in regions}
    partial = build_label_map(parse_painting(record.result, CONFIG, SHAPE), CONFIG.schema, masks)
    assert (partial.label_map == partial.label_map[0]).all()
    return ["".join({0: "b", 1: "n", IGNORE_INDEX: "."}[value] for value in partial.label_map[0].tolist())]


# What an annotation started from


def test_an_annotation_from_an_empty_page_started_from_nothing() -> None:
    took = take(submitted(brush("a", mask(0), "Nucleus"), parent=False), sent("p", NEW, 1))
    assert (took.model_version, took.deleted, took.corrective_dice) == (None, 0, {})


def test_regions_tell_which_of_several_predictions_it_was() -> None:
    regions = [sent("old", OLD, 0, 1), sent("new", NEW, 0, 1, 2)]
    took = take(submitted(brush("old", mask(0, 1), "Nucleus", "prediction")), *regions)
    assert took == Measured(accepted=1, lead_time_s=5.0, model_version=OLD, corrective_dice={"Nucleus": 1.0})


def test_a_prediction_of_which_everything_was_deleted_counts_as_all_wrong() -> None:
    took = take(submitted(brush("a", mask(6), "Nucleus")), sent("p", NEW, 1))
    assert (took.model_version, took.deleted) == (NEW, 1)
    assert took.corrective_dice == {"Nucleus": 0.0}


def test_an_accepted_answer_of_a_smart_tool_is_a_click_and_no_stroke() -> None:
    clicked = {**brush("c", mask(3, 4), "Nucleus"), "score": 0.97}
    took = take(submitted(clicked, brush("a", mask(0), "Nucleus"), parent=False))
    assert (took.clicks, took.strokes, took.painted_px) == (1, 1, 3 * SHAPE[0])
    told = sum_up([OpenEffort(1, {"clicks": 3, "strokes": 1}, {"clicks": 1}), OpenEffort(2, {}, None)])
    assert (told["clicks"], told["strokes"]) == (2, 1)


def test_a_region_of_the_prediction_is_no_click_whatever_its_score() -> None:
    left = {**brush("p", mask(1), "Nucleus", "prediction"), "score": 0.8}
    took = take(submitted(left), sent("p", NEW, 1))
    assert (took.clicks, took.accepted) == (0, 1)


def test_an_edit_does_not_change_what_the_annotation_started_from() -> None:
    regions = [sent("old", OLD, 0), sent("new", NEW, 0)]
    took = take(submitted(brush("a", mask(0), "Nucleus")), *regions, known={"model_version": OLD})
    assert took.model_version == OLD


def test_a_prediction_of_somebody_else_is_not_taken_for_ours() -> None:
    theirs = brush("theirs", mask(0), "Nucleus", "prediction")
    took = take(submitted(theirs), sent("p", NEW, 1))
    assert (took.model_version, took.deleted, took.corrective_dice) == (None, 0, {})


def test_a_copy_that_the_server_made_of_a_prediction_took_nothing_and_proves_nothing() -> None:
    took = take(submitted(brush("p", mask(1), "Nucleus", "prediction"), lead_time=None), sent("p", NEW, 1))
    assert took == Measured()


def test_the_recorded_correction_is_measured_as_it_was_made() -> None:
    answer = json.loads((RECORDED / "browser_edited_prediction.annotation_response.json").read_text())
    record = parse_task({"id": 5, "data": {}, "project": 7, "annotations": [answer]}).annotations[0]
    changed = next(region for region in record.result if region["id"] == "nu0")
    assert (record.lead_time_s, record.from_prediction) == (6.634, True)
    shape = (240, 320)
    painting = parse_painting(record.result, CONFIG, shape)
    after = next(region for region in painting.regions if region.region_id == "nu0")
    before = SentRegion("nu0", "Nucleus", NEW, after.top, after.left, np.ones(after.alpha.shape, bool))
    masks = {"nu0": SentMask(1, before.top, before.left, before.mask)}
    start = find_start(record, CONFIG, [before], NEW, None)
    took = measure(record, painting, CONFIG, [before], masks, start)
    assert changed["origin"] == "prediction-changed"
    assert (took.strokes, took.accepted, took.corrected, took.deleted) == (1, 0, 1, 0)
    assert took.erased_px == np.count_nonzero(~after.painted)
    assert 0 < took.corrective_dice["Nucleus"] < 1


def test_the_recorded_webhook_carries_its_lead_time() -> None:
    body = json.loads((RECORDED / "webhook_ANNOTATION_CREATED.request.json").read_text())["body"]
    (record,) = parse_webhook(body).annotations
    assert record.lead_time_s == 3.5


# Answers


def test_a_question_changed_to_reviewed_teaches_its_box_and_counts_as_an_answer() -> None:
    record = submitted(
        brush("p", mask(1, 2, 6), "Nucleus", "prediction"),
        rectangle("Reviewed"),
        rectangle("Uncertain", x=50),
    )
    original = sent("p", NEW, 1, 2, 6)
    assert teach(record, original) == ["bnnb...."]
    took = take(record, original)
    assert (took.questions_answered, took.accepted, took.painted_px) == (1, 1, 0)


def test_a_box_that_a_person_drew_is_reviewed_and_no_answer() -> None:
    record = submitted(brush("p", mask(1), "Nucleus", "prediction"), rectangle("Reviewed", "manual"))
    assert teach(record, sent("p", NEW, 1)) == ["bnbb...."]
    assert take(record, sent("p", NEW, 1)).questions_answered == 0


def test_a_question_that_was_left_or_deleted_teaches_nothing() -> None:
    predicted = brush("p", mask(1), "Nucleus", "prediction")
    for result in ([predicted, rectangle("Uncertain")], [predicted]):
        assert teach(submitted(*result), sent("p", NEW, 1)) == ["........"]


def test_a_corrected_prediction_teaches_its_difference_and_inside_a_reviewed_box_everything() -> None:
    changed = brush("p", mask(1, 2), "Nucleus", "prediction-changed")
    original = sent("p", NEW, 0, 1)
    assert teach(submitted(changed), original) == ["b.n....."]
    assert teach(submitted(changed, rectangle("Reviewed")), original) == ["bnnb...."]


def test_a_deleted_prediction_teaches_nothing_by_itself_and_background_where_it_is_reviewed() -> None:
    stroke = brush("a", mask(7), "Nucleus")
    assert teach(submitted(stroke), sent("p", NEW, 1)) == [".......n"]
    assert teach(submitted(stroke, rectangle("Reviewed")), sent("p", NEW, 1)) == ["bbbb...n"]


def test_a_question_about_nothing_but_background_is_answered_without_a_stroke() -> None:
    assert teach(submitted(rectangle("Reviewed"))) == ["bbbb...."]


# Sums


def opened(counted: Mapping[str, Any] | None = None, **measured: Any) -> OpenEffort:
    return OpenEffort(1, measured, counted)


def test_a_round_without_anything_new_took_nothing() -> None:
    total = sum_up([])
    assert (total["annotations"], total["strokes"], total["lead_time_s"]) == (0, 0, None)
    assert total["corrective_dice"] == {"mean": None, "annotations": 0, "classes": {}, "versions": {}}


def test_of_an_edited_annotation_only_what_was_added_counts() -> None:
    before = {"strokes": 3, "painted_px": 90, "lead_time_s": 4.0}
    total = sum_up([opened(before, strokes=4, painted_px=70, lead_time_s=9.5)])
    assert (total["strokes"], total["painted_px"], total["lead_time_s"]) == (1, 0, 5.5)


def test_every_annotator_counts_and_corrections_are_kept_apart_by_version() -> None:
    total = sum_up(
        [
            opened(model_version=OLD, accepted=2, corrective_dice={"Nucleus": 0.8, "Cell": 0.6}),
            opened(model_version=NEW, corrected=1, corrective_dice={"Nucleus": 0.9}),
            opened(model_version=NEW, corrective_dice={"Nucleus": 1.0}),
            opened(strokes=1),
        ]
    )
    assert total["regions"] == {"accepted": 2, "corrected": 1, "deleted": 0}
    assert total["corrective_dice"] == {
        "mean": 0.8667,
        "annotations": 3,
        "classes": {"Nucleus": 0.9, "Cell": 0.6},
        "versions": {OLD: {"mean": 0.7, "annotations": 1}, NEW: {"mean": 0.95, "annotations": 2}},
    }


# Through the loop


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    torch.set_num_threads(1)
    bench = make_bench(tmp_path)
    yield bench
    bench.close()


def test_rounds_report_the_effort_of_what_was_new_in_them(bench: Bench) -> None:
    bench.submit(1, 2)
    bench.tell(bench.painted(1, user_id=2, number=555))
    bench.tell(bench.painted(2, user_id=2, number=666))
    bench.server.drop(666)
    bench.loop.record(
        bench.event("ANNOTATIONS_DELETED", "annotations-deleted", deleted_annotation_ids=(666,))
    )
    bench.loop.run_round(1)
    objects = [paint_all(make_picture(task_id)[1]) for task_id in (1, 2)]
    first = bench.loop.rounds(1)[0]
    assert first["effort"]["annotations"] == 3
    assert first["effort"]["strokes"] == 2 * len(objects[0]) + len(objects[1])
    assert set(first["held_out_objects"]) == {"Background", "Nucleus"}

    picture = make_picture(3)[1]
    was_sent = SentRegion("p", "Nucleus", NEW, 0, 0, picture > 0)
    with bench.parts.database.write() as connection:
        sent_regions.save_sent(connection, 1, 3, [was_sent], bench.clock())
    corrected = [
        brush("p", picture > 1, "Nucleus", "prediction-changed"),
        brush("b", picture == 0, "Background"),
    ]
    bench.tell(bench.painted(3, result=corrected))
    bench.loop.run_round(1)
    effort = bench.loop.rounds(1)[0]["effort"]
    assert effort["annotations"] == 1
    assert effort["erased_px"] == np.count_nonzero(picture == 1)
    assert effort["regions"] == {"accepted": 0, "corrected": 1, "deleted": 0}
    both, total = np.count_nonzero(picture > 1), np.count_nonzero(picture > 0)
    assert effort["corrective_dice"]["versions"] == {
        NEW: {"mean": pytest.approx(2 * both / (both + total), abs=1e-4), "annotations": 1}
    }
    assert bench.status()["last_round"]["effort"] == effort
    assert bench.status()["stopping"]["verdict"] == "early"
