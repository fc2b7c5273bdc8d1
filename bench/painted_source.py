"""Painted images as a source of examples, held out in the way the service does it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from bench.annotator import SCHEMA, PaintedImage
from core.rounds import Example, ExampleSummary
from core.schema import IGNORE_INDEX, LabelSchema
from core.truth.holdout import has_enough_held_out, split, summarise


class PaintedSource:
    """Implements `core.rounds.ExampleSource`.

    `new` names the images whose truth is news to the current model, all by default. Without `hold_out`, and
    while too little would be held out, everything is trained on.
    """

    def __init__(
        self,
        painted: Sequence[PaintedImage],
        schema: LabelSchema = SCHEMA,
        new: Collection[str] | None = None,
        *,
        hold_out: bool = True,
    ) -> None:
        self._schema = schema
        self._new = {p.name for p in painted} if new is None else set(new)
        self._examples, self._summaries = self._open(painted, hold_out)
        if hold_out and not has_enough_held_out(self._summaries, schema):
            self._examples, self._summaries = self._open(painted, hold_out=False)

    def summaries(self) -> list[ExampleSummary]:
        return self._summaries

    def open(self, key: str) -> Example:
        return self._examples[key]

    def _open(
        self, painted: Sequence[PaintedImage], hold_out: bool
    ) -> tuple[dict[str, Example], list[ExampleSummary]]:
        examples, summaries = {}, []
        for p in painted:
            train, held_out = p.label_map, np.full_like(p.label_map, IGNORE_INDEX)
            if hold_out:
                train, held_out = split(p.label_map, self._schema, p.name)
            examples[p.name] = Example(p.name, p.image, train, held_out)
            summaries.append(summarise(p.name, train, held_out, self._schema, p.name in self._new))
        return examples, summaries
