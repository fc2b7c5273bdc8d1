"""The reliability diagram: how often answers are right that claim to be right so often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bench.intervals import interval_of
from bench.peers import AUGMENTED, PLAIN

LOWEST = 0.5
"""Of two classes the more probable one is never less sure."""

LEARNERS = (("network", AUGMENTED, "-"), ("forest", PLAIN, ":"))


def save_picture(measurements: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw one panel per set: a line per budget, solid for the network and dotted for the forest."""
    names = list(dict.fromkeys(m["set"] for m in measurements))
    figure = Figure(figsize=(5 * len(names), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        axes.plot([LOWEST, 1], [LOWEST, 1], color="0.7", linewidth=1)
        _draw_set(axes, [m for m in measurements if m["set"] == name])
        axes.set(title=name, xlabel="confidence", ylabel="share that is right", aspect="equal")
        axes.legend(frameon=False, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _draw_set(axes: Any, measurements: Sequence[Mapping[str, Any]]) -> None:
    budgets = sorted({m["objects"] for m in measurements if m["objects"] != "all"})
    for number, n_objects in enumerate(budgets):
        for learner, mode, style in LEARNERS:
            of = [m for m in measurements if (m["objects"], m["learner"]) == (n_objects, learner)]
            if of:
                bins = np.mean([m[mode]["reliability"] for m in of], axis=0)  # (n_bins, 2)
                error = interval_of([m[mode]["ece"] for m in of])
                label = f"{learner}, {n_objects} objects: ECE {error.mean:.3f}"
                axes.plot(*bins.T, style, marker=".", color=f"C{number}", label=label)
