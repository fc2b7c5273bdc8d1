"""A page for people: what the model knows, what it is doing, and where it is unsure.

The page is made here from the same records that `/api` serves; `dashboard.js` asks for the status every two
seconds and, when it changed, fetches this page again and swaps the sections that differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Blueprint, jsonify, render_template, request
from flask.typing import ResponseReturnValue

from export.colours import colour_of
from ml_backend.web.api_routes import PROJECT
from ml_backend.web.charts import HEIGHT, WIDTH, sparkline
from ml_backend.web.label_studio_routes import MODEL_CLASS
from ml_backend.web.loop import Loop
from ml_backend.web.prometheus import round_outcome

SHOWN_ROUNDS = 10
SHOWN_TASKS = 6
SHOWN_LINT = 50

STATE_WORDS = {
    "waiting": "Waiting for more annotations",
    "queued": "A round is queued",
    "training": "Training",
    "refining": "Up to date, and learning on",
    "idle": "Up to date",
    "error": "The last round failed",
}

CORRECTIVE_DICE = "Corrective Dice"

MEANINGS = {
    CORRECTIVE_DICE: "how well what was sent agrees with what people submitted. "
    "What nobody checked counts as right.",
}
"""Of trends whose name does not say it."""

TRENDS = (
    ("Painted pixels per annotation", "painted_px", "{:,.0f}"),
    ("Strokes per annotation", "strokes", "{:.1f}"),
    ("Seconds per annotation", "lead_time_s", "{:.1f}"),
)
"""What should fall from round to round: title, key in a round's effort, and how a value is written."""

OUTCOME_WORDS = {"promoted": "new model", "kept": "old model kept"}


def dashboard_routes(loop: Loop) -> Blueprint:
    """`/` and `/projects/<id>`. Links are relative, so the page works below any path prefix."""
    routes = Blueprint("dashboard", __name__)

    @routes.get("/")
    def index() -> ResponseReturnValue:
        if "text/html" not in request.headers.get("Accept", ""):
            # Programs that know label-studio-ml's server ask here whether it is up.
            return jsonify(status="UP", model_class=MODEL_CLASS)
        return render_template("index.html", projects=loop.projects(), words=STATE_WORDS, root="")

    @routes.get(PROJECT)
    def project(project_id: int) -> ResponseReturnValue:
        view = loop.view(project_id, SHOWN_TASKS)
        status, reports = view.status, list(view.rounds)
        return render_template(
            "project.html",
            root="../",
            status=status,
            words=STATE_WORDS,
            rounds=[to_round_row(report, status["model_version"]) for report in reports[:SHOWN_ROUNDS]],
            n_rounds=len(reports),
            is_new=is_new(status, reports),
            trends=to_trends(reports),
            lint=status["readiness"]["lint"][:SHOWN_LINT],
            tasks=list(view.tasks),
            task_address=view.task_address,
            legend=to_legend(status["readiness"]["classes"]),
            is_trainable=is_trainable(status["readiness"]["classes"]),
            chart=(WIDTH, HEIGHT),
        )

    return routes


def to_round_row(report: Mapping[str, Any], current: str | None) -> dict[str, Any]:
    """What the table of rounds shows of one report; what a failed round lacks is left empty."""
    outcome = round_outcome(report)
    losses = [_loss(point) for point in report.get("loss_curve") or ()]
    known = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    return {
        "round": report.get("round"),
        "model_version": report.get("model_version"),
        "outcome": OUTCOME_WORDS.get(outcome, outcome),
        "mark": {"promoted": "good", "failed": "bad"}.get(outcome, ""),
        "is_current": current is not None and report.get("model_version") == current,
        "draft": bool(report.get("draft")),
        "reason": report.get("error") or report.get("reason") or "",
        "seconds": report.get("seconds"),
        "dice": _dice_rows(report.get("held_out") or {}),
        "curve": sparkline(known),
        "low": f"{min(known):.2f}" if known else "",
        "high": f"{max(known):.2f}" if known else "",
        "last_loss": losses[-1] if losses else None,
    }


def to_legend(classes: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Name and colour of each class that is drawn over images, in the order of the labeling setup.

    >>> to_legend([{"name": "Background", "role": "background"}, {"name": "Nucleus", "role": "object"}])
    [('Nucleus', 'rgb(225, 29, 72)')]
    """
    return [
        (row["name"], f"rgb{colour_of(index)}")
        for index, row in enumerate(classes)
        if row["role"] != "background"
    ]


def is_trainable(classes: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a round that is asked for has something to tell apart: two painted classes."""
    return sum(bool(row["pixels"]) for row in classes) >= 2


def is_new(status: Mapping[str, Any], reports: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the first model answers, no second whole round is done, and no answer came back submitted.

    Label Studio's page that was opened before keeps what it knew of the project, and may show no answers.
    """
    done = [r for r in reports if r["state"] == "done" and r.get("kind", "round") == "round"]
    efforts = [r.get("effort") or {} for r in reports]
    came_back = any((e.get("corrective_dice") or {}).get("mean") is not None for e in efforts)
    return bool(status["model_version"]) and len(done) <= 1 and not came_back


def to_trends(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the charts of effort show: one line per quantity, over the rounds that counted annotations.

    `reports` are newest first, as the loop lists them; the lines run from the oldest round to the newest.
    """
    efforts = [
        report["effort"] for report in reversed(reports) if (report.get("effort") or {}).get("annotations")
    ]
    lines = [
        (title, text, [e[key] / e["annotations"] for e in efforts if e.get(key) is not None])
        for title, key, text in TRENDS
    ]
    corrective = [(e.get("corrective_dice") or {}).get("mean") for e in efforts]
    lines.append((CORRECTIVE_DICE, "{:.2f}", [mean for mean in corrective if mean is not None]))
    return [
        {
            "title": title,
            "meaning": MEANINGS.get(title, ""),
            "first": text.format(values[0]),
            "last": text.format(values[-1]),
            "low": text.format(min(values)),
            "high": text.format(max(values)),
            "n_rounds": len(values),
            "curve": sparkline(values),
        }
        for title, text, values in lines
        if values
    ]


def _loss(point: Any) -> float | None:
    """A point of a loss curve is a number, or `[step, loss]`."""
    if isinstance(point, Sequence) and not isinstance(point, str) and point:
        point = point[-1]
    return float(point) if isinstance(point, (int, float)) else None


def _dice_rows(held_out: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "dice": scores.get("dice"), "interval": scores.get("interval")}
        for name, scores in held_out.items()
        if isinstance(scores, Mapping)
    ]
