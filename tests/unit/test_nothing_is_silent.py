"""What people do and nothing comes of: each has one finding that says why, and what works has none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loop_fakes import Bench, make_bench
from numpy.typing import NDArray
from painted import LABEL_CONFIG, SIDE_PX, brush

from core.rle import encode
from ml_backend.errors import LabelConfigError
from ml_backend.ports import SentRegion

SIDE = SIDE_PX


def area(top: int, bottom: int, left: int, right: int) -> NDArray[np.bool_]:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top:bottom, left:right] = True
    return mask


GROUND = brush("g", area(0, 20, 0, SIDE), "Background")
NUCLEUS = brush("n", area(30, 50, 10, 40), "Nucleus")
SECOND = brush("n2", area(54, 62, 45, 60), "Nucleus")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = make_bench(tmp_path)
    yield bench
    bench.close()


def say(bench: Bench, result: Sequence[Any], task_id: int = 1, **more: Any) -> None:
    """Submit one annotation."""
    changes = {key: more.pop(key) for key in ("from_prediction", "lead_time_s", "copied_from") if key in more}
    record = bench.painted(task_id, result=list(result), **more)
    bench.tell(replace(record, **changes))


def pixels(bench: Bench) -> dict[str, int]:
    bench.loop.build_truth(1)
    return {row["name"]: row["pixels"] for row in bench.status()["readiness"]["classes"]}


def codes(bench: Bench) -> list[str]:
    bench.loop.build_truth(1)
    found = [finding["code"] for finding in bench.status()["readiness"]["lint"]]
    return [code for code in found if code not in ("no-background-near", "class-imbalance")]


def with_stream(region: dict[str, Any], stream: list[int]) -> dict[str, Any]:
    return {**region, "value": {**region["value"], "rle": stream}}


@pytest.mark.parametrize("alpha", [1, 100])
def test_a_faint_mask_is_named_as_such(bench: Bench, alpha: int) -> None:
    faint = encode(area(30, 50, 10, 40).astype(np.uint8) * np.uint8(alpha))
    say(bench, [GROUND, with_stream(NUCLEUS, faint)])
    assert pixels(bench) == {"Background": 1280, "Nucleus": 0}
    assert codes(bench) == ["faint-mask"]


def test_open_polygons_beside_brushes_are_named(bench: Bench) -> None:
    shape = '<PolygonLabels name="poly" toName="image"><Label value="Nucleus"/></PolygonLabels>'
    use_setup(bench, LABEL_CONFIG.replace("</View>", f"{shape}</View>"))
    polygon = {
        "id": "p",
        "type": "polygonlabels",
        "from_name": "poly",
        "to_name": "image",
        "value": {"points": [[1, 1], [50, 1], [50, 50]], "closed": False, "polygonlabels": ["Nucleus"]},
    }
    say(bench, [GROUND, polygon])
    assert codes(bench) == ["open-outline"]


def test_a_choice_about_one_region_is_no_finding(bench: Bench) -> None:
    quality = '<Choices name="quality" toName="image" perRegion="true"><Choice value="blurry"/></Choices>'
    use_setup(bench, LABEL_CONFIG.replace("</View>", f"{quality}</View>"))
    value = {"format": "rle", "rle": NUCLEUS["value"]["rle"], "choices": ["blurry"]}
    choice = {**NUCLEUS, "from_name": "quality", "type": "choices", "value": value}
    say(bench, [GROUND, NUCLEUS, choice])
    assert pixels(bench) == {"Background": 1280, "Nucleus": 600}
    assert codes(bench) == []


def test_two_annotations_of_one_person_count_together(bench: Bench) -> None:
    say(bench, [GROUND, NUCLEUS], number=100)
    say(bench, [SECOND], number=101)
    assert pixels(bench) == {"Background": 1280, "Nucleus": 720}
    assert codes(bench) == []


def test_where_two_annotations_of_one_person_differ_the_newer_one_counts_and_that_is_said(
    bench: Bench,
) -> None:
    say(bench, [GROUND, NUCLEUS], number=101)
    say(bench, [brush("b", area(30, 40, 0, SIDE), "Background")], number=100)
    assert pixels(bench) == {"Background": 1280 + 10 * SIDE, "Nucleus": 300}
    assert codes(bench) == ["newer-annotation"]


def test_imports_without_a_user_count_together(bench: Bench) -> None:
    for number, region in enumerate((GROUND, NUCLEUS), 100):
        record = bench.painted(1, result=[region], number=number)
        bench.tell(replace(record, user_id=None))
    assert pixels(bench) == {"Background": 1280, "Nucleus": 600}


def test_deleting_the_newer_annotation_brings_the_older_one_back(bench: Bench) -> None:
    say(bench, [GROUND, NUCLEUS], number=100)
    say(bench, [brush("b", area(30, 50, 0, SIDE), "Background")], number=101)
    assert pixels(bench)["Nucleus"] == 0
    bench.loop.record(
        bench.event("ANNOTATIONS_DELETED", "annotations-deleted", deleted_annotation_ids=(101,))
    )
    assert pixels(bench) == {"Background": 1280, "Nucleus": 600}


class TestPredictionsOfOtherModels:
    """Their regions say `manual`, as programs write them, and a person worked on the annotation."""

    def test_what_came_along_unchanged_teaches_nothing(self, bench: Bench) -> None:
        bench.server.add_task(1)
        bench.server.place(1, {"result": [GROUND, NUCLEUS], "score": 0.5, "model_version": "other"})
        say(bench, [GROUND, NUCLEUS, SECOND], from_prediction=True, lead_time_s=9.0)
        assert pixels(bench) == {"Background": 0, "Nucleus": 120}
        assert codes(bench) == ["untouched-prediction", "untouched-prediction"]

    def test_a_copy_under_another_id_is_known_by_its_mask(self, bench: Bench) -> None:
        bench.server.add_task(1)
        bench.server.place(1, {"result": [NUCLEUS], "score": 0.5, "model_version": "other"})
        say(bench, [{**NUCLEUS, "id": "new"}], from_prediction=True, lead_time_s=9.0)
        assert pixels(bench)["Nucleus"] == 0

    def test_what_a_person_added_to_it_teaches(self, bench: Bench) -> None:
        bench.server.add_task(1)
        bench.server.place(1, {"result": [NUCLEUS], "score": 0.5, "model_version": "other"})
        larger = brush("n", area(30, 52, 10, 40), "Nucleus")
        say(bench, [larger], from_prediction=True, lead_time_s=9.0)
        assert pixels(bench) == {"Background": 0, "Nucleus": 2 * 30}

    def test_nobody_is_asked_about_our_own(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            "ml_backend.strokes.build_truth.sent_regions.list_sent",
            lambda *_: [sent_region("ours", area(0, 9, 0, 9))],
        )
        bench.server.add_task(1)
        ours = brush("ours", area(0, 9, 0, 9), "Nucleus", "prediction")
        record = replace(bench.painted(1, result=[ours, SECOND]), from_prediction=True, lead_time_s=1.0)
        bench.tell(record)
        bench.server.is_down = True
        assert pixels(bench)["Nucleus"] == 120

    def test_while_nobody_can_be_asked_it_waits_and_says_so(self, bench: Bench) -> None:
        bench.server.add_task(1)
        bench.server.place(1, {"result": [NUCLEUS], "score": 0.5, "model_version": "other"})
        bench.server.is_down = True
        say(bench, [NUCLEUS, SECOND], from_prediction=True, lead_time_s=9.0)
        assert pixels(bench)["Nucleus"] == 0
        assert codes(bench) == ["label-studio-unreachable"]
        bench.server.is_down = False
        bench.clock.now += 60
        assert pixels(bench)["Nucleus"] == 120

    def test_what_cannot_be_told_any_more_is_said(self, bench: Bench) -> None:
        say(bench, [GROUND, NUCLEUS], from_prediction=True, lead_time_s=9.0)
        assert pixels(bench) == {"Background": 1280, "Nucleus": 600}
        assert codes(bench) == ["unchecked-copy"]


class TestCopiesOfAnnotations:
    """Label Studio names the annotation that a copy was made of, and not where that one came from."""

    def test_a_copy_of_one_that_came_from_another_model_teaches_no_more_than_that(self, bench: Bench) -> None:
        bench.server.add_task(1)
        bench.server.place(1, {"result": [NUCLEUS], "score": 0.5, "model_version": "other"})
        say(bench, [NUCLEUS], number=7, from_prediction=True, lead_time_s=9.0)
        say(bench, [{**NUCLEUS, "id": "copy"}, SECOND], number=8, copied_from=7, lead_time_s=9.0)
        say(bench, [{**NUCLEUS, "id": "again"}], number=9, copied_from=8, lead_time_s=9.0)
        assert pixels(bench)["Nucleus"] == 120

    def test_a_copy_of_a_persons_work_teaches_and_nobody_is_asked(self, bench: Bench) -> None:
        bench.server.is_down = True
        say(bench, [NUCLEUS], number=7, lead_time_s=9.0)
        say(bench, [{**NUCLEUS, "id": "copy"}, SECOND], number=8, copied_from=7, lead_time_s=9.0)
        assert pixels(bench)["Nucleus"] == 720
        assert codes(bench) == []

    def test_a_copy_of_one_that_is_not_known_is_compared_with_the_predictions(self, bench: Bench) -> None:
        bench.server.add_task(1)
        bench.server.place(1, {"result": [NUCLEUS], "score": 0.5, "model_version": "other"})
        say(bench, [NUCLEUS, SECOND], number=8, copied_from=7, lead_time_s=9.0)
        assert pixels(bench)["Nucleus"] == 120

    def test_where_nothing_can_be_told_of_a_copy_that_is_said(self, bench: Bench) -> None:
        say(bench, [NUCLEUS], number=8, copied_from=7, lead_time_s=9.0)
        assert pixels(bench)["Nucleus"] == 600
        assert codes(bench) == ["unchecked-copy"]


def sent_region(region_id: str, mask: NDArray[np.bool_]) -> SentRegion:
    return SentRegion(region_id, "Nucleus", "r0001-aaaaaaaa", 0, 0, mask)


def use_setup(bench: Bench, xml: str) -> None:
    bench.server.label_config = xml
    bench.loop.connect(1, bench.server.created_at, xml, "http://label-studio", "token")


ONE_LABEL = """<View><Image name="image" value="$image"/>
<BrushLabels name="brush" toName="image"><Label value="Nucleus"/></BrushLabels></View>"""


class TestASingleLabel:
    def test_without_any_review_it_is_said_at_setup_in_the_status_and_at_start_training(
        self, bench: Bench
    ) -> None:
        with pytest.raises(LabelConfigError, match='Add <Label value="Background"/>'):
            use_setup(bench, ONE_LABEL)
        say(bench, [NUCLEUS])
        status = bench.status()
        assert status["state"] == "error"
        assert 'Add <Label value="Background"/>' in status["advice"]
        assert "Start training" not in status["advice"]
        with pytest.raises(LabelConfigError):
            bench.loop.request_training(1)
        with pytest.raises(LabelConfigError):
            bench.loop.record(bench.event("START_TRAINING", "start-training"))
        assert status["annotations"]["received"] == 1  # what was painted waits for the mend

    def test_with_reviewed_boxes_it_learns(self, bench: Bench) -> None:
        review = '<RectangleLabels name="ask" toName="image"><Label value="Reviewed"/></RectangleLabels>'
        use_setup(bench, ONE_LABEL.replace("</View>", f"{review}</View>"))
        say(bench, [NUCLEUS])
        assert pixels(bench) == {"Nucleus": 600, "Background": 0}
        advice = bench.status()["advice"]
        assert "draw a Reviewed rectangle" in advice
        assert "Start training" not in advice
        box = {"x": 0, "y": 0, "width": 100, "height": 100, "rectanglelabels": ["Reviewed"]}
        reviewed = {
            "id": "r",
            "type": "rectanglelabels",
            "from_name": "ask",
            "to_name": "image",
            "value": box,
        }
        say(bench, [NUCLEUS, reviewed])
        assert pixels(bench) == {"Nucleus": 600, "Background": SIDE * SIDE - 600}
        assert bench.status()["readiness"]["ready"]
        assert bench.loop.run_round(1) is not None
