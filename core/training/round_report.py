"""What a round says about itself: enough for a person to understand it and for the service to show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from core.network.checkpoint import Checkpoint

Origin = Literal["fresh", "base", "warm"]


@dataclass(frozen=True)
class RoundReport:
    """Plain facts of one round; `to_record` is its JSON form.

    Attributes
    ----------
    seen : images opened, and annotated training pixels per class name of the whole project
    changed : steps made, the fewest a round should make, share of held-out pixels answered otherwise, change
        of the mean held-out Dice
    held_out : per class name `{"dice", "iou", "interval"}` of the new model; empty without a hold-out
    previous_held_out : the same of the model that was current, on the same pixels
    loss_curve : mean loss of up to 50 equal stretches of the round, in nats
    origin : what training started from: fresh weights, the shipped base, or the current model (warm)
    reason : one sentence on why the new model was or was not promoted
    skipped_images : keys of images that could not be read, with the reason
    classes_without_pixels : names of classes that nothing was annotated for
    """

    seen: Mapping[str, Any]
    changed: Mapping[str, Any]
    held_out: Mapping[str, Any]
    previous_held_out: Mapping[str, Any]
    loss_curve: tuple[float, ...]
    seconds: float
    promoted: bool
    reason: str
    draft: bool
    origin: Origin
    temperature: float
    skipped_images: Mapping[str, str]
    classes_without_pixels: tuple[str, ...]
    fingerprint: str
    parent: str | None
    seed: int

    def to_record(self) -> dict[str, Any]:
        """Plain JSON form, for the database and the status page."""
        record = asdict(self)
        record["loss_curve"] = list(self.loss_curve)
        record["classes_without_pixels"] = list(self.classes_without_pixels)
        return record


@dataclass(frozen=True)
class RoundResult:
    """A trained checkpoint, and whether it should become the current model."""

    checkpoint: Checkpoint
    promoted: bool
    report: RoundReport
