"""The sentence that says what to do next, from what is missing to "more painting buys little"."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.schema import LabelSchema
from core.training.stopping import StopAdvice
from core.truth.readiness import Readiness, assess
from ml_backend.status.advice import UNKNOWN, advise, judge_stopping, to_evidence
from ml_backend.storage.rounds import StoredRound

SCHEMA = LabelSchema.of("Background", "Nucleus")
READY = assess([(90_000, 3), (20_000, 60)], SCHEMA, 5000)
ENOUGH = StopAdvice("enough", "More painting buys little.")
EARLY = StopAdvice("early", "Too early.")


def say(
    readiness: Readiness = READY,
    stopping: StopAdvice = EARLY,
    problem: str | None = None,
    failed: bool = False,
) -> str:
    return advise(readiness, stopping, problem=problem, has_failed=failed)


def make_report(change: float = 0.0, corrective: float | None = 0.97, **more: Any) -> dict[str, Any]:
    """A round's report as it is stored; only what advice reads."""
    scores = {"dice": 0.93, "iou": 0.87, "interval": [0.91, 0.95]}
    return {
        "promoted": True,
        "held_out": {"Background": {**scores, "interval": [None, None]}, "Nucleus": scores},
        "previous_held_out": {"Nucleus": {**scores, "dice": 0.93 - change}},
        "held_out_objects": {"Background": 1, "Nucleus": 12},
        "changed": {"steps": 80, "answers_share": 0.01, "mean_dice": change},
        "effort": {"annotations": 4, "corrective_dice": {"mean": corrective, "annotations": 4}},
        **more,
    }


def stored(number: int, report: dict[str, Any] | None, state: Any = "done") -> StoredRound:
    known = {
        "number": number, "state": state, "owner": "", "truth_seq": 1, "started_at": 0.0, "heartbeat_at": 9.0,
        "finished_at": 9.0, "progress": 1.0, "eta_s": None, "error": None,
        "model_version": f"r{number:04d}-aaaaaaaa" if report and report.get("promoted") else None,
        "report": None if report is None else json.dumps(report),
    }  # fmt: skip
    return StoredRound(**known)


def judge(
    *oldest_first: dict[str, Any], current: str | None = None, schema: LabelSchema = SCHEMA
) -> StopAdvice:
    listed = [stored(number, report) for number, report in enumerate(oldest_first, 1)][::-1]
    return judge_stopping(listed, schema, current or f"r{len(listed):04d}-aaaaaaaa")


def test_three_still_rounds_of_stored_reports_are_enough() -> None:
    advice = judge(make_report(0.1), make_report(), make_report(0.004), make_report())
    assert advice.verdict == "enough"
    assert say(stopping=advice) == advice.reason


def test_rounds_that_still_gain_go_on_and_say_by_how_much() -> None:
    sentence = say(stopping=judge(make_report(), make_report(0.05), make_report()))
    assert "raised the held-out Dice by .05" in sentence
    assert "Go on" in sentence


def test_flat_scores_with_many_corrections_point_to_other_images() -> None:
    sentence = say(stopping=judge(*[make_report(corrective=0.7)] * 3))
    assert "corrective Dice .70" in sentence
    assert "images unlike the painted ones" in sentence


def test_after_a_rollback_nobody_is_told_to_stop() -> None:
    assert judge(*[make_report()] * 3, current="r0001-aaaaaaaa").verdict == "early"


def test_a_new_class_in_the_setup_takes_the_advice_back() -> None:
    with_mitosis = LabelSchema.of("Background", "Nucleus", "Mitosis")
    assert judge(*[make_report()] * 3, schema=with_mitosis).verdict == "early"


def test_failed_and_running_rounds_are_passed_over() -> None:
    listed = [
        stored(5, None, "running"),
        stored(4, make_report()),
        stored(3, None, "failed"),
        stored(2, make_report()),
        stored(1, make_report()),
    ]
    assert judge_stopping(listed, SCHEMA, "r0004-aaaaaaaa").verdict == "enough"


@pytest.mark.parametrize("field", ["effort", "held_out_objects", "previous_held_out", "held_out", "changed"])
def test_reports_that_lack_something_never_say_enough(field: str) -> None:
    bare = {name: value for name, value in make_report().items() if name != field}
    assert judge(bare, bare, bare).verdict == "early"


def test_an_empty_report_is_evidence_of_nothing() -> None:
    assert to_evidence({}).scores == {}
    assert judge_stopping([], SCHEMA, None).verdict == "early"
    assert judge_stopping([], None, None).verdict == "early"


def test_what_is_missing_comes_before_everything_that_was_reached() -> None:
    closed = assess([(90_000, 3), (400, 2)], SCHEMA, 5000)
    assert "4600 more pixels" in say(closed, ENOUGH)
    assert say(stopping=ENOUGH, failed=True).startswith("The last round failed")
    assert "two brushes" in say(stopping=ENOUGH, problem="two brushes", failed=True)
    assert say(Readiness(False, (), (), "")).startswith("Connect")


def test_few_objects_are_named_unless_the_model_has_enough() -> None:
    few = assess([(90_000, 3), (20_000, 12)], SCHEMA, 5000)
    assert "Nucleus (12 of 50)" in say(few)
    assert say(few, ENOUGH) == ENOUGH.reason


def test_a_score_that_is_unclear_asks_for_corrections() -> None:
    assert say(stopping=StopAdvice("unclear", "It moves.")).startswith("Correct predictions")


def test_a_failed_round_says_why_in_the_advice_itself() -> None:
    advice = advise(Readiness(False, (), (), ""), UNKNOWN, problem=None, has_failed=True, cause="too little")
    assert advice.startswith("The last round failed: too little. Paint")
