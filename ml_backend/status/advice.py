"""What to do next, in one or two sentences: from what is still missing to "more painting buys little"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.schema import LabelSchema
from core.training.stopping import ClassScore, RoundEvidence, StopAdvice, advise_stopping
from core.truth.readiness import MIN_CLASSES, Readiness
from ml_backend.storage.rounds import StoredRound

ROUNDS_BACK = 30
"""Rounds that are read for advice: rounds without anything new lie between those that count."""

UNKNOWN = StopAdvice("early", "No model of this project is in use yet.")
START_ANYWAY = " 'Start training' does not wait for that."
CORRECT = "Correct predictions and answer the model's questions: that teaches the most."
ELSEWHERE = "Correct predictions in images unlike the painted ones first."


def judge_stopping(
    listed: Sequence[StoredRound], schema: LabelSchema | None, current_version: str | None
) -> StopAdvice:
    """Whether more painting buys little, from the newest rounds, newest first.

    After a rollback nothing is known: the last rounds tell of models that are not in use.
    """
    done = [stored.to_record() for stored in listed if stored.state == "done" and stored.report]
    newest = next((report["model_version"] for report in done if report.get("promoted")), None)
    if schema is None or newest is None or newest != current_version:
        return UNKNOWN
    return advise_stopping([to_evidence(report) for report in reversed(done)], schema)


def to_evidence(report: Mapping[str, Any]) -> RoundEvidence:
    """A round's report as evidence; what an older report does not have is not known."""
    previous, held_out = report.get("previous_held_out") or {}, report.get("held_out_objects") or {}
    effort = report.get("effort") or {}
    corrections = effort.get("corrective_dice") or {}
    return RoundEvidence(
        scores={
            name: ClassScore(
                score.get("dice"),
                (previous.get(name) or {}).get("dice"),
                _to_interval(score.get("interval")),
                held_out.get(name, 0),
            )
            for name, score in (report.get("held_out") or {}).items()
        },
        answers_share=(report.get("changed") or {}).get("answers_share"),
        annotations=effort.get("annotations", 0),
        corrective_dice=corrections.get("mean"),
        corrected=corrections.get("annotations", 0),
    )


def advise(
    readiness: Readiness,
    stopping: StopAdvice,
    *,
    problem: str | None,
    has_failed: bool,
    repeat: str | None = None,
    cause: str | None = None,
    concern: str = "",
) -> str:
    """One or two sentences on what to do next; `problem` is with the labeling setup.

    `cause` is why the last round failed, `repeat` why and when an interrupted one is tried again, `concern`
    what speaks against the model in use.
    """
    if problem:
        return f"Change the labeling setup in Label Studio: {problem}."
    if has_failed:
        why = f": {cause}" if cause else ""
        return f"The last round failed{why}. Paint something new, or ask for a round, to try again."
    if repeat:
        return f"Paint on, the round is repeated by itself: {repeat}."
    if not readiness.classes:
        return "Connect this backend to the project in Label Studio."
    if not readiness.ready:
        can_start = sum(row.pixels > 0 for row in readiness.classes) >= MIN_CLASSES
        return f"Paint on: {readiness.missing}" + (START_ANYWAY if can_start else "")
    if concern:
        return concern
    if stopping.verdict == "enough":
        return stopping.reason
    few = [
        f"{row.name} ({row.objects} of {row.advised_objects})"
        for row in readiness.classes
        if row.role == "object" and row.pixels > 0 and row.objects < row.advised_objects
    ]
    if few:
        return f"Paint more objects of {', '.join(few)}, where the model asks."
    if stopping.verdict == "gaining":
        return f"{stopping.reason} Go on: {CORRECT[0].lower()}{CORRECT[1:]}"
    return f"{stopping.reason} {ELSEWHERE}" if stopping.verdict == "flat" else CORRECT


def _to_interval(edges: Any) -> tuple[float, float] | None:
    return (edges[0], edges[1]) if edges and None not in edges else None
