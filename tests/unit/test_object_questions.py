"""Whether something is one object or two is asked about the object itself, where the model is in doubt."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from core.asking.object_questions import MOST_SURE, object_questions
from core.asking.reason import reason
from core.asking.regions import MAX_SIDE_PX
from core.asking.suggestion import MAX_OBJECT_QUESTIONS, SuggestionSettings, build_suggestion
from core.objects.measure import ObjectLimits
from core.objects.split_blobs import Neck, split_touching
from core.painting import Box
from core.prediction import Prediction
from core.schema import LabelSchema

SCHEMA = LabelSchema.of("Background", "Nucleus")
RADIUS_PX, DIAMETER_PX = 11, 22
NOTHING = np.zeros((200, 200), bool)


def pair(apart_px: float, centre: tuple[int, int] = (100, 100)) -> NDArray[np.bool_]:
    """Two discs, their centres so far apart in a row."""
    rows, columns = np.mgrid[:200, :200]
    half = apart_px / 2
    return (np.hypot(rows - centre[0], columns - centre[1] - half) < RADIUS_PX) | (
        np.hypot(rows - centre[0], columns - centre[1] + half) < RADIUS_PX
    )


def predict(mask: NDArray[np.bool_]) -> Prediction:
    """A model that is sure of every pixel."""
    labels, zeros = mask.astype(np.uint8), np.zeros(mask.shape, np.float16)
    return Prediction(labels, 1 - labels, zeros + np.float16(1), zeros, zeros, zeros, zeros + np.float16(1))


def ask(mask: NDArray[np.bool_], annotated: NDArray[np.bool_] = NOTHING, n: int = 5) -> list[tuple[Box, str]]:
    limits = [ObjectLimits(), ObjectLimits(typical_diameter_px=DIAMETER_PX)]
    found = build_suggestion(
        predict(mask), SCHEMA, annotated, limits, SuggestionSettings(max_questions=n, ask_when_sure=False)
    )
    return [(region.box, reason(region, SCHEMA)) for region in found.regions]


def test_the_further_two_discs_are_apart_the_more_probably_they_are_two() -> None:
    shares = [
        neck.p_two for apart in (12, 14, 16, 18) for neck in split_touching(pair(apart), DIAMETER_PX)[1]
    ]
    assert len(shares) == 4
    assert shares == sorted(shares)
    assert shares[0] < 0.5 < shares[-1]


@pytest.mark.parametrize("apart_px", range(8, 22))
def test_what_is_cut_is_probably_two(apart_px: int) -> None:
    separated, necks = split_touching(pair(apart_px), DIAMETER_PX)
    is_cut = bool((separated != pair(apart_px)).any())
    assert all(neck.p_two > MOST_SURE for neck in necks) or not is_cut


def test_the_box_of_a_question_is_the_doubtful_object_itself() -> None:
    doubtful = next(d for d in range(8, 22) if ask(pair(d)))
    ((box, words),) = ask(pair(doubtful))
    assert words.startswith("One Nucleus or two? ")
    rows, columns = np.nonzero(pair(doubtful))
    assert box.top < rows.min()
    assert rows.max() < box.top + box.height - 1
    assert box.left < columns.min()
    assert columns.max() < box.left + box.width - 1
    assert box.height * box.width < 3 * pair(doubtful).sum()


def test_discs_that_are_surely_one_or_surely_two_are_no_question() -> None:
    assert ask(pair(0)) == ask(pair(20)) == []


def test_nothing_is_asked_where_something_is_known_or_no_question_is_wanted() -> None:
    doubtful = next(d for d in range(8, 22) if ask(pair(d)))
    assert ask(pair(doubtful), pair(doubtful)) == []
    assert ask(pair(doubtful), n=0) == []


def test_few_of_the_questions_are_about_objects_and_they_lie_apart() -> None:
    doubtful = next(d for d in range(8, 22) if ask(pair(d)))
    places = [(row, column) for row in (40, 100, 160) for column in (50, 150)]
    asked = ask(np.logical_or.reduce([pair(doubtful, place) for place in places]))
    assert len(asked) == MAX_OBJECT_QUESTIONS
    (one, _), (other, _) = asked
    drawn = np.zeros((200, 200), int)
    for box in (one, other):
        drawn[box.slices] += 1
    assert drawn.max() == 1


def test_the_reason_says_which_answer_is_shown_and_how_sure_it_is() -> None:
    shown = object_questions(
        [(1, Neck(Box(20, 20, 16, 32), 0.42)), (1, Neck(Box(90, 90, 16, 32), 0.65))], NOTHING
    )
    assert [reason(region, SCHEMA) for region in shown] == [
        "One Nucleus or two? 58 % one",
        "One Nucleus or two? 65 % two",
    ]


def test_what_is_sure_or_too_large_to_look_at_is_left_out() -> None:
    surer = MOST_SURE + 0.01
    necks = [Neck(Box(20, 20, 16, 32), surer), Neck(Box(20, 20, 16, 32), 1 - surer)]
    necks.append(Neck(Box(0, 0, MAX_SIDE_PX, MAX_SIDE_PX), 0.5))
    assert object_questions([(1, neck) for neck in necks], np.zeros((600, 600), bool)) == ()
