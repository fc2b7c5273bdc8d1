"""Learning curves as pictures; needs matplotlib, which is an optional extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

SIZE_INCHES, DPI = (7.2, 4.4), 120
GRID_POINTS = 60
AXES = {"objects": "painted objects", "seconds": "simulated seconds of work"}


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw_curves(
    path: Path, curves: Sequence[Mapping[str, Any]], effort: str, level: float, level_words: str
) -> None:
    """Mean Dice per arm over an effort, with the range of its seeds, as PNG.

    The level is a dotted line, left out where every curve begins above it: it would squeeze the rest.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A figure of its own, without pyplot: nothing global, no window.
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for arm in dict.fromkeys(curve["arm"] for curve in curves):
        of_arm = [curve for curve in curves if curve["arm"] == arm]
        grid, dice = _on_one_grid(of_arm, effort)
        (line,) = axes.plot(grid, dice.mean(0), label=arm, linewidth=1.8)
        if len(of_arm) > 1:
            axes.fill_between(grid, dice.min(0), dice.max(0), color=line.get_color(), alpha=0.12, linewidth=0)
    if min(curve["dice"][0] for curve in curves) < level:
        axes.axhline(level, color="0.5", linewidth=0.8, linestyle=":", label=level_words)
    axes.set_xlabel(AXES[effort])
    axes.set_ylabel("Dice on unseen images")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="best")
    figure.savefig(path)


def _on_one_grid(curves: Sequence[Mapping[str, Any]], effort: str) -> tuple[Any, Any]:
    """Common efforts `(n,)` and the Dice there, `(curves, n)`: from the latest start to the earliest end."""
    first = max(curve[effort][0] for curve in curves)
    last = min(curve[effort][-1] for curve in curves)
    grid = np.linspace(first, max(first, last), GRID_POINTS)
    return grid, np.stack([np.interp(grid, curve[effort], curve["dice"]) for curve in curves])
