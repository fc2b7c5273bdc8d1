"""Why a place is asked about, in a few words that stand beside the question in Label Studio."""

from __future__ import annotations

import math

from core.asking.regions import Region
from core.schema import LabelSchema

TOLERANCE = 1e-3
"""Rounding errors of float16 maps just outside of 0..1."""


def reason(region: Region, schema: LabelSchema) -> str:
    """Say in a few words why this place is asked about.

    Raises ValueError for a confidence that is not in 0..1.

    Examples
    --------
    >>> from core.painting import Box
    >>> schema = LabelSchema.of("Background", "Nucleus")
    >>> reason(Region(Box(0, 0, 48, 48), 0.9, 1, 0, 0.52), schema)
    'Nucleus or Background? 52 %'
    >>> reason(Region(Box(0, 0, 48, 48), 0.9, 1, 1, 0.58, n_objects=1), schema)
    'One Nucleus or two? 58 % one'
    >>> reason(Region(Box(0, 0, 48, 48), 0.9, 1, 1, 0.58, n_objects=2), schema)
    'One Nucleus or two? 58 % two'
    """
    first, second = schema.names[region.class_index], schema.names[region.runner_up_index]
    if region.is_disputed:
        return f"Two people differ: {first} or {second}?"
    percent = f"{100 * checked_share(region.confidence):.0f} %"
    if region.n_objects:
        return f"One {first} or two? {percent} {('one', 'two')[region.n_objects - 1]}"
    return f"{first} or {second}? {percent}"


def checked_share(share: float) -> float:
    """A plain float in 0..1; rounding errors just outside are cut."""
    if not math.isfinite(share) or not -TOLERANCE <= share <= 1 + TOLERANCE:
        raise ValueError(f"a score must be in 0..1, got {share}")
    return min(max(float(share), 0.0), 1.0)
