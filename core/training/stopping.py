"""When more painting buys little: advice from the last rounds, with the reason in words.

The advice is careful: a project that stops too early has a worse model for good, one that goes on too long
has lost some minutes. So every doubt says "go on", and only what was measured counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from core.schema import LabelSchema

Verdict = Literal["early", "gaining", "unclear", "flat", "enough"]

WINDOW = 3
"""Rounds that have to agree; one or two stand still by chance."""

MIN_ANNOTATIONS = 5
"""New annotations in the window: rounds over next to nothing stand still whatever the model still lacks."""

MIN_HELD_OUT_OBJECTS = 10
"""Per class: a score over fewer says little. About 50 painted objects hold so many out."""

FLAT_DICE, FLAT_CLASS_DICE = 0.01, 0.02
"""Change of the held-out Dice that is no gain to speak of: of the mean over classes, and of any class."""

FLAT_ANSWERS_SHARE = 0.02
"""Share of held-out pixels that a round may answer differently while nothing changes."""

WIDEST_INTERVAL = 0.1
"""A score known less well than this (95 %, upper minus lower end) cannot be said to stand still."""

MIN_CORRECTIONS = 5
"""Annotations in the window that started from a prediction; fewer say nothing about the rest."""

HIGH_CORRECTIVE_DICE, FLAT_CORRECTIVE_DICE = 0.95, 0.03
"""Corrections are rare from here on, and steady when the rounds of the window differ by no more than this.

People disagree with one another, and with themselves a week later, by a few hundredths of Dice.
"""

ROUNDING_DIGITS = 9
"""Differences of scores are compared without the dust of binary fractions: .99 - .96 is .03."""


@dataclass(frozen=True)
class ClassScore:
    """One class of a round: held-out Dice of the new and of the old model on the same pixels, and how sure.

    None is not known. `interval` is the 95 % interval of the new model's Dice.
    """

    dice: float | None
    previous_dice: float | None
    interval: tuple[float, float] | None
    held_out_objects: int


@dataclass(frozen=True)
class RoundEvidence:
    """What one round says about whether painting still pays.

    Attributes
    ----------
    scores : per class name of the round's model, Background included; empty without a hold-out
    answers_share : share of held-out pixels that old and new model answer differently, 0..1
    annotations : annotations that were new or changed in this round
    corrective_dice : mean Dice of what was sent against what was submitted, 0..1
    corrected : annotations behind `corrective_dice`
    """

    scores: Mapping[str, ClassScore]
    answers_share: float | None
    annotations: int
    corrective_dice: float | None = None
    corrected: int = 0


@dataclass(frozen=True)
class StopAdvice:
    """`enough` says that more painting buys little; `reason` says why, or what is missing, in a sentence."""

    verdict: Verdict
    reason: str


def advise_stopping(rounds: Sequence[RoundEvidence], schema: LabelSchema) -> StopAdvice:
    """Say whether more painting buys little.

    `enough` needs, over the last `WINDOW` rounds with something new: every class of the project held out
    well enough, none of them new, no gain, hardly another answer, and corrections that are rare and steady.

    Parameters
    ----------
    rounds : sequence of RoundEvidence
        Rounds that ended well, oldest first.
    schema : LabelSchema
        Classes of the project now; scores of object classes count.

    Returns
    -------
    StopAdvice
        `early`: too little is known. `gaining`: the score still rises. `unclear`: it moves, or is not
        known well. `flat`: it stands still, but corrections are frequent or unknown. `enough`: all is well.

    References: RootPainter (Smith et al. 2022, https://doi.org/10.1111/nph.18387) for the corrective Dice;
    Bloodgood & Vijay-Shanker 2009, https://aclanthology.org/W09-1107, for the agreement of successive models.

    Examples
    --------
    >>> still = RoundEvidence({"Nucleus": ClassScore(0.93, 0.93, (0.91, 0.95), 12)}, 0.01, 4, 0.97, 4)
    >>> advise_stopping([still] * 3, LabelSchema.of("Nucleus")).verdict
    'enough'
    >>> advise_stopping([still] * 2, LabelSchema.of("Nucleus")).verdict
    'early'
    """
    # A round without anything new repeats the last answer, and would look like a flat curve.
    window = [evidence for evidence in rounds if evidence.annotations > 0][-WINDOW:]
    lacking = next(_missing(window, schema), None)
    if lacking:
        return StopAdvice("early", lacking)
    names = [schema.names[index] for index in schema.object_indices]
    changes = {name: [_change(evidence, name) for evidence in window] for name in names}
    mean = [sum(column) / len(names) for column in zip(*changes.values(), strict=True)]
    rising = [name for name in names if _exceeds(sum(changes[name]), FLAT_CLASS_DICE)]
    if _exceeds(sum(mean), FLAT_DICE) or rising:
        return StopAdvice("gaining", _say_gain(mean, changes, rising))
    doubt = next(_doubts(window, mean, changes), None)
    if doubt:
        return StopAdvice("unclear", doubt)
    return _judge_corrections(window)


def _missing(window: Sequence[RoundEvidence], schema: LabelSchema) -> Iterator[str]:
    """What keeps us from saying anything."""
    if len(window) < WINDOW:
        yield f"{WINDOW} rounds with something new are needed to see whether the score still rises."
        return
    if any(not evidence.scores for evidence in window):
        yield "Some of the last rounds had nothing held out to be judged by."
    elif any(set(evidence.scores) != set(schema.names) for evidence in window):
        yield "The classes changed within the last rounds."
    else:
        yield from _missing_scores(window, schema)
    if sum(evidence.annotations for evidence in window) < MIN_ANNOTATIONS:
        yield f"The last {WINDOW} rounds saw fewer than {MIN_ANNOTATIONS} annotations."


def _missing_scores(window: Sequence[RoundEvidence], schema: LabelSchema) -> Iterator[str]:
    for index in schema.object_indices:
        name = schema.names[index]
        scores = [evidence.scores[name] for evidence in window]
        held_out = scores[-1].held_out_objects
        if held_out < MIN_HELD_OUT_OBJECTS:
            yield f"{held_out} objects of {name} are held out, of {MIN_HELD_OUT_OBJECTS} that a score needs."
        if any(s.dice is None or s.previous_dice is None or s.interval is None for s in scores):
            yield f"{name} was not in all of the last {WINDOW} rounds."
    if any(evidence.answers_share is None for evidence in window):
        yield f"The last {WINDOW} rounds did not all go on from an earlier model."


def _change(evidence: RoundEvidence, name: str) -> float:
    score = evidence.scores[name]
    return (score.dice or 0.0) - (score.previous_dice or 0.0)


def _say_gain(mean: Sequence[float], changes: Mapping[str, Sequence[float]], rising: Sequence[str]) -> str:
    best = max(changes, key=lambda name: sum(changes[name]))
    if rising and not _exceeds(sum(mean), FLAT_DICE):
        return f"The last {WINDOW} rounds raised the held-out Dice of {best} by {_short(sum(changes[best]))}."
    return f"The last {WINDOW} rounds raised the held-out Dice by {_short(sum(mean))}."


def _doubts(
    window: Sequence[RoundEvidence], mean: Sequence[float], changes: Mapping[str, Sequence[float]]
) -> Iterator[str]:
    """Why a score that did not rise cannot be said to stand still."""
    # Sums too: small steps in one direction add up to a move.
    steps = [*map(abs, mean), *map(abs, accumulate(mean))]
    if _exceeds(max(steps), FLAT_DICE):
        yield f"The held-out Dice still moves by {_short(max(steps))} from round to round."
    for name, column in changes.items():
        if _exceeds(max(map(abs, column)), FLAT_CLASS_DICE):
            yield f"The held-out Dice of {name} still moves by {_short(max(map(abs, column)))}."
    share = _answers_share(window)
    if _exceeds(share, FLAT_ANSWERS_SHARE):
        yield f"Rounds still change {_percent(share)} of the answers."
    for name in changes:
        low, high = window[-1].scores[name].interval or (0.0, 1.0)
        if _exceeds(high - low, WIDEST_INTERVAL):
            yield f"The held-out Dice of {name} is only known to be between {_short(low)} and {_short(high)}."


def _judge_corrections(window: Sequence[RoundEvidence]) -> StopAdvice:
    still = (
        f"The last {WINDOW} rounds changed the held-out Dice by less than {_short(FLAT_DICE)} and at most "
        f"{_percent(_answers_share(window))} of the answers"
    )
    measured = [
        (e.corrective_dice, e.corrected) for e in window if e.corrective_dice is not None and e.corrected
    ]
    n_corrected = sum(n for _, n in measured)
    if n_corrected < MIN_CORRECTIONS:
        return StopAdvice("flat", f"{still}; too few predictions were corrected to tell how good they are.")
    # By annotation: a round with one correction must not weigh as much as one with twenty.
    corrective = sum(dice * n for dice, n in measured) / n_corrected
    spread = max(dice for dice, _ in measured) - min(dice for dice, _ in measured)
    if _exceeds(HIGH_CORRECTIVE_DICE, corrective):
        return StopAdvice("flat", f"{still}, yet much is corrected (corrective Dice {_short(corrective)}).")
    if _exceeds(spread, FLAT_CORRECTIVE_DICE):
        return StopAdvice("flat", f"{still}, yet corrections differ from round to round by {_short(spread)}.")
    reason = (
        f"{still}; corrections are rare (corrective Dice {_short(corrective)}): more painting buys little."
    )
    return StopAdvice("enough", reason)


def _answers_share(window: Sequence[RoundEvidence]) -> float:
    return max(evidence.answers_share or 0.0 for evidence in window)


def _exceeds(value: float, limit: float) -> bool:
    return round(value - limit, ROUNDING_DIGITS) > 0


def _short(value: float) -> str:
    """`.97`, as scores are written."""
    text = f"{value:.2f}"
    return text[1:] if text.startswith("0.") else text


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "1 %"
