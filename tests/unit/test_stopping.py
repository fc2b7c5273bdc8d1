"""When more painting buys little, and all the cases in which nobody may say so."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.schema import LabelSchema
from core.training.stopping import (
    FLAT_ANSWERS_SHARE,
    HIGH_CORRECTIVE_DICE,
    MIN_HELD_OUT_OBJECTS,
    ClassScore,
    RoundEvidence,
    StopAdvice,
    advise_stopping,
)

SCHEMA = LabelSchema.of("Background", "Nucleus", "Mitosis")
GROUND = ClassScore(0.99, 0.99, (0.98, 1.0), 0)


def score(dice: float, change: float = 0.0, width: float = 0.04, objects: int = 15) -> ClassScore:
    return ClassScore(dice, dice - change, (dice - width / 2, dice + width / 2), objects)


def still(
    nucleus: float = 0.002, mitosis: float = -0.001, *, corrective: float | None = 0.97, **more: float
) -> RoundEvidence:
    """A round that changed next to nothing; the first two are the gains of its classes."""
    scores = {"Background": GROUND, "Nucleus": score(0.93, nucleus), "Mitosis": score(0.88, mitosis)}
    n_corrected = 0 if corrective is None else 3
    return RoundEvidence(scores, more.get("answers_share", 0.01), 3, corrective, n_corrected)


def with_score(evidence: RoundEvidence, name: str, value: ClassScore) -> RoundEvidence:
    return replace(evidence, scores={**evidence.scores, name: value})


def ask(*rounds: RoundEvidence) -> StopAdvice:
    return advise_stopping(rounds, SCHEMA)


def test_three_rounds_without_gain_or_corrections_are_enough_and_say_why() -> None:
    advice = ask(still(0.05), still(), still(), still())
    assert advice.verdict == "enough"
    assert advice.reason == (
        "The last 3 rounds changed the held-out Dice by less than .01 and at most 1 % of the answers; "
        "corrections are rare (corrective Dice .97): more painting buys little."
    )


def test_without_any_round_it_is_early() -> None:
    assert ask().verdict == "early"


def test_two_rounds_are_too_early() -> None:
    assert ask(still(), still()).verdict == "early"


def test_rounds_over_nothing_new_do_not_count() -> None:
    idle = replace(still(), annotations=0)
    assert ask(still(), idle, idle, idle, still()).verdict == "early"
    assert ask(still(), idle, still(), idle, still()).verdict == "enough"


def test_three_single_strokes_prove_nothing() -> None:
    assert ask(*[replace(still(), annotations=1)] * 3).verdict == "early"


def test_a_round_that_gained_says_go_on() -> None:
    advice = ask(still(), still(0.06, 0.02), still())
    assert advice == StopAdvice("gaining", "The last 3 rounds raised the held-out Dice by .04.")


def test_small_steps_add_up_to_a_gain() -> None:
    assert ask(*[still(0.008, 0.008)] * 3).verdict == "gaining"


def test_a_rare_class_that_gains_is_not_lost_in_the_mean() -> None:
    advice = ask(still(-0.01, 0.011), still(-0.01, 0.011), still(0.0, 0.0))
    assert advice.verdict == "gaining"
    assert "Mitosis" in advice.reason


def test_a_score_that_falls_and_rises_is_not_still() -> None:
    assert ask(still(-0.05, -0.05), still(0.05, 0.05), still()).verdict == "unclear"


def test_answers_that_change_say_go_on() -> None:
    advice = ask(still(), still(), still(answers_share=0.06))
    assert advice == StopAdvice("unclear", "Rounds still change 6 % of the answers.")


def test_a_score_that_is_not_known_well_says_go_on() -> None:
    wide = with_score(still(), "Mitosis", score(0.88, 0.0, width=0.2))
    advice = ask(still(), still(), wide)
    assert advice.verdict == "unclear"
    assert "between .78 and .98" in advice.reason


def test_too_small_a_hold_out_is_too_early() -> None:
    few = with_score(still(), "Mitosis", score(0.88, objects=MIN_HELD_OUT_OBJECTS - 1))
    advice = ask(still(), still(), few)
    assert advice == StopAdvice("early", "9 objects of Mitosis are held out, of 10 that a score needs.")


def test_a_draft_without_a_hold_out_is_too_early() -> None:
    assert ask(still(), replace(still(), scores={}), still()).verdict == "early"


def test_a_class_that_was_added_starts_the_count_anew() -> None:
    two = {name: value for name, value in still().scores.items() if name != "Mitosis"}
    before = replace(still(), scores=two)
    assert ask(before, before, before).verdict == "early"
    assert ask(before, before, still()).verdict == "early"
    fresh = with_score(still(), "Mitosis", replace(score(0.8), previous_dice=None))
    assert ask(before, fresh, still(), still()).verdict == "early"
    assert ask(before, fresh, still(), still(), still()).verdict == "enough"


def test_a_class_that_nobody_painted_is_not_done() -> None:
    unpainted = with_score(still(), "Mitosis", ClassScore(None, None, None, 0))
    assert ask(*[unpainted] * 3).verdict == "early"


def test_without_corrections_it_is_flat_and_no_more() -> None:
    advice = ask(*[still(corrective=None)] * 3)
    assert advice.verdict == "flat"
    assert "too few predictions were corrected" in advice.reason


@pytest.mark.parametrize(
    ("corrective", "words"),
    [((0.7, 0.7, 0.7), "much is corrected"), ((0.999, 0.95, 0.999), "differ from round to round by .05")],
)
def test_frequent_or_unsteady_corrections_are_no_end(
    corrective: tuple[float, float, float], words: str
) -> None:
    advice = ask(*(still(corrective=value) for value in corrective))
    assert advice.verdict == "flat"
    assert words in advice.reason


small = st.floats(-0.003, 0.003)
good_rounds = st.lists(
    st.builds(still, small, small, corrective=st.floats(0.96, 0.99)), min_size=3, max_size=6
)


@given(good_rounds, st.integers(0, 2), st.data())
def test_any_single_doubt_about_any_round_of_the_window_says_go_on(
    rounds: list[RoundEvidence], position: int, data: st.DataObject
) -> None:
    assert ask(*rounds).verdict == "enough"
    index = len(rounds) - 1 - position
    bad = rounds[index]
    doubts = [
        replace(bad, answers_share=data.draw(st.floats(FLAT_ANSWERS_SHARE + 0.001, 1.0))),
        replace(bad, answers_share=None),
        replace(bad, scores={}),
        replace(bad, scores={**bad.scores, "New": score(0.9)}),
        replace(bad, corrective_dice=data.draw(st.floats(0, HIGH_CORRECTIVE_DICE - 0.06))),
        with_score(bad, "Nucleus", score(0.9, data.draw(st.floats(0.03, 0.9)))),
        with_score(bad, "Mitosis", score(0.5, data.draw(st.floats(-0.5, -0.03)))),
    ]
    for doubt in doubts:
        advice = ask(*rounds[:index], doubt, *rounds[index + 1 :])
        assert advice.verdict != "enough"
        assert advice.reason.endswith(".")


@given(
    st.lists(st.builds(still, st.floats(-1, 1), st.floats(-1, 1), answers_share=st.floats(0, 1)), max_size=5)
)
def test_enough_is_never_said_of_a_window_that_gained(rounds: list[RoundEvidence]) -> None:
    advice = ask(*rounds)
    gains = [value.dice - value.previous_dice for e in rounds[-3:] for value in e.scores.values()]  # type: ignore[operator]
    assert advice.verdict != "enough" or max(gains) <= 0.02 + 1e-9
    assert advice.reason
    assert "nan" not in advice.reason
