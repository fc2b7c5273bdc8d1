"""The status document as a person reads it in a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

REFRESH_S = 1.0
SHOWN_LINT = 8
BAR_WIDTH = 40

STATE_STYLES = {
    "waiting": "yellow",
    "queued": "cyan",
    "training": "cyan",
    "refining": "green",
    "idle": "green",
    "error": "bold red",
}


def render_status(status: Mapping[str, Any]) -> RenderableType:
    """One project: headline, classes, running round, findings, advice."""
    return Group(*_parts(status))


def render_projects(projects: list[dict[str, Any]]) -> RenderableType:
    """All projects in short."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("project", "title", "state", "model version"):
        table.add_column(column)
    for project in projects:
        table.add_row(
            str(project["project"]),
            Text(str(project.get("title") or "")),
            _state(str(project["state"])),
            str(project.get("model_version") or "none yet"),
        )
    return table


def watch(read: Callable[[], Mapping[str, Any]], console: Console) -> None:
    """Show the status anew every second, until Ctrl-C."""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(render_status(read()), refresh=True)
            time.sleep(REFRESH_S)


def _parts(status: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield _headline(status)
    yield _classes(status["readiness"]["classes"])
    if status.get("training"):
        yield _training(status["training"])
    if status.get("last_round"):
        yield from _last_round(status["last_round"])
    yield from _taught(status.get("taught") or ())
    if status.get("last_error"):
        yield Text(f"last error: {status['last_error']}", "red")
    lint = status["readiness"]["lint"]
    for finding in lint[:SHOWN_LINT]:
        yield Text(f"task {finding['task']}: {finding['message']}", "yellow")
    if len(lint) > SHOWN_LINT:
        yield Text(f"and {len(lint) - SHOWN_LINT} more remarks", "yellow")
    if status.get("advice"):
        yield Text(str(status["advice"]), "bold")


def _headline(status: Mapping[str, Any]) -> RenderableType:
    annotations, pool = status["annotations"], status["pool"]
    model = str(status.get("model_version") or "no model yet") + (" (draft)" if status.get("draft") else "")
    line = Text(f"project {status['project']}  ")
    weak = [str(one["name"]) for one in status.get("weak_classes") or ()]
    line.append_text(_state(str(status["state"]), is_weak=bool(weak)))
    if weak:
        line.append(f", {', '.join(weak)} not learnt yet", "yellow")
    line.append(f"  {model}  round {status['round']}\n")
    line.append(
        f"{annotations['received']} annotations, {annotations['trained']} learnt, "
        f"{annotations['pending']} waiting; {pool['tasks']} images, {pool['scored']} scored, "
        f"{pool['stale']} by an earlier model",
        "dim",
    )
    return line


def _state(state: str, *, is_weak: bool = False) -> Text:
    """Never green while a class is not learnt, however up to date the model is."""
    style = STATE_STYLES.get(state, "")
    return Text(state, "yellow" if is_weak and style == "green" else style)


def _classes(classes: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("class")
    for column in ("pixels", "needed", "objects", "advised"):
        table.add_column(column, justify="right")
    for row in classes:
        is_enough = row["pixels"] >= row["needed_pixels"]
        table.add_row(
            Text(str(row["name"])),
            Text(f"{row['pixels']:,}", "green" if is_enough else "yellow"),
            f"{row['needed_pixels']:,}" if row["needed_pixels"] else "",
            str(row["objects"]),
            str(row["advised_objects"] or ""),
        )
    return table


def _training(training: Mapping[str, Any]) -> RenderableType:
    share = float(training["progress"])
    eta = training.get("eta_s")
    row = Table.grid(padding=(0, 1))
    row.add_row(
        f"{training.get('kind', 'round')} {training['round']}",
        ProgressBar(total=1.0, completed=share, width=BAR_WIDTH),
        f"{share:.0%}",
        f"about {eta:.0f} s left" if eta is not None else "",
    )
    return row


def _last_round(report: Mapping[str, Any]) -> Iterator[RenderableType]:
    scores = ", ".join(
        f"{name} {score['dice']:.2f}"
        for name, score in (report.get("held_out") or {}).items()
        if score.get("dice") is not None
    )
    if scores:
        yield Text(f"held-out Dice of the last round: {scores}")
    if report.get("promoted") is False and report.get("reason"):
        yield Text(f"the last round kept the model: {report['reason']}")
    if (report.get("effort") or {}).get("annotations"):
        yield Text(_effort(report["effort"]), "dim")


def _taught(taught: Sequence[Mapping[str, Any]]) -> Iterator[RenderableType]:
    """The newest answer, and those that teach nothing."""
    for number, one in enumerate(taught):
        pixels = ", ".join(f"{count:,} px of {name}" for name, count in one["pixels"].items())
        if one["why_not"]:
            yield Text(f"task {one['task']} teaches nothing: {one['why_not']}", "yellow")
        elif number == 0:
            yield Text(f"task {one['task']} teaches {pixels}", "dim")


def _effort(effort: Mapping[str, Any]) -> str:
    """What the annotations of a round took, in a line."""
    parts = [f"{effort['strokes']} strokes", f"{effort['painted_px']:,} painted pixels"]
    if effort.get("clicks"):
        parts.insert(1, f"{effort['clicks']} clicks")
    if effort.get("questions_answered"):
        parts.append(f"{effort['questions_answered']} questions answered")
    if effort.get("lead_time_s") is not None:
        parts.append(f"{effort['lead_time_s']:.0f} s")
    corrective = (effort.get("corrective_dice") or {}).get("mean")
    if corrective is not None:
        parts.append(f"corrective Dice {corrective:.2f}")
    return f"its {effort['annotations']} annotations took {', '.join(parts)}"
