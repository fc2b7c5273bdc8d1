"""Answers for tasks that somebody opens: kept, shared, in time; one failure takes no other one along."""

from __future__ import annotations

import io
import math
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from loop_fakes import CREATED, Bench, make_bench
from painted import LABEL_CONFIG, SIDE_PX, brush, make_picture
from PIL import Image

from core.prediction import Prediction
from core.rle import decode
from core.schema import IGNORE_INDEX
from ml_backend.errors import LabelStudioRefusedError
from ml_backend.label_studio.label_config import parse_label_config
from ml_backend.label_studio.paintings import parse_painting
from ml_backend.ports import SentRegion
from ml_backend.storage import candidates, predictions, sent_regions, tables
from ml_backend.strokes.combining import combine_paintings
from ml_backend.suggestions import pictures
from ml_backend.suggestions.push import MAX_PUSH_ATTEMPTS, PUSH_BATCH


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = make_bench(tmp_path)
    bench.submit(1, 2)
    assert bench.loop.run_round(1) is not None
    bench.images.opened.clear()
    yield bench
    bench.close()


def later() -> float:
    return time.monotonic() + 60


def ask(bench: Bench, *task_ids: int, deadline: float | None = None) -> list[dict[str, Any] | None]:
    for task_id in task_ids:
        if task_id not in bench.server.tasks:
            bench.server.add_task(task_id)
    return bench.loop.suggest(1, [bench.task(i) for i in task_ids], LABEL_CONFIG, deadline or later())


def see_nuclei(bench: Bench, monkeypatch: pytest.MonkeyPatch, task_id: int) -> Any:
    """Have the model see one nucleus in the middle and be unsure of its right half; returns the mask."""
    mask = np.zeros((SIDE_PX, SIDE_PX), bool)
    mask[20:44, 20:44] = True
    margin = np.ones(mask.shape, np.float16)
    margin[:, 32:] = 0.1
    zeros = np.zeros(mask.shape, np.float16)
    labels = mask.astype(np.uint8)
    seen = Prediction(labels, 1 - labels, (1 + margin) / 2, 1 - margin, zeros, zeros, margin)
    monkeypatch.setattr(bench.loop._suggester, "predict", lambda *a, **k: seen)
    return mask


def test_there_is_one_entry_per_task_in_their_order(bench: Bench) -> None:
    answers = ask(bench, 9, 8, 7)
    assert [answer is not None and answer["model_version"] for answer in answers] == [
        bench.status()["model_version"]
    ] * 3
    assert all(answer and 0 <= answer["score"] <= 1 for answer in answers)


def test_without_a_model_there_is_nothing_to_say(bench: Bench) -> None:
    assert bench.loop.suggest(7, [bench.task(1)], LABEL_CONFIG, later()) == [None]


def test_a_task_that_fails_does_not_take_the_others_with_it(bench: Bench) -> None:
    bench.images.broken = {8}
    first, second, third = ask(bench, 9, 8, 7)
    assert second is None
    assert first is not None
    assert third is not None


def test_a_labeling_setup_that_cannot_be_used_gives_no_answer(bench: Bench) -> None:
    assert bench.loop.suggest(1, [bench.task(9)], "<View/>", later()) == [None]


def test_the_same_question_is_answered_from_the_database(bench: Bench) -> None:
    first = ask(bench, 9)
    assert bench.images.opened == [9]
    from ml_backend.learning_loop import LearningLoop

    other_process = LearningLoop(bench.parts)
    assert other_process.suggest(1, [bench.task(9)], LABEL_CONFIG, later()) == first
    assert bench.images.opened == [9]


def test_two_equal_calls_at_once_are_computed_once_and_answered_alike(bench: Bench) -> None:
    entered, go_on = threading.Event(), threading.Event()
    look = bench.images.open

    def look_slowly(*arguments: Any) -> Any:
        entered.set()
        assert go_on.wait(20)
        return look(*arguments)

    bench.images.open = look_slowly  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(ask, bench, 9) for _ in range(2)]
        assert entered.wait(20)
        time.sleep(0.2)
        go_on.set()
        first, second = (call.result(60) for call in calls)
    assert first == second
    assert bench.images.opened == [9]


def test_what_is_not_done_in_time_is_pushed_when_it_is(bench: Bench) -> None:
    answers = ask(bench, 9, 8, deadline=time.monotonic() - 1)
    assert answers == [None, None]
    assert bench.loop.push(1) == 2
    assert sorted(task_id for task_id, _ in bench.server.pushed) == [8, 9]
    assert bench.server.pushed[0][1]["model_version"] == bench.status()["model_version"]
    assert bench.loop.push(1) == 0


def test_an_answer_that_is_there_already_needs_no_time(bench: Bench) -> None:
    first = ask(bench, 9)
    assert ask(bench, 9, deadline=time.monotonic() - 1) == first


def test_a_push_that_fails_is_tried_again_later(bench: Bench) -> None:
    ask(bench, 9, deadline=time.monotonic() - 1)
    bench.server.is_down = True
    assert bench.loop.push(1) == 0
    bench.server.is_down = False
    assert bench.loop.push(1) == 0
    bench.clock.now += 61
    assert bench.loop.push(1) == 1


def test_however_long_label_studio_is_away_what_is_owed_is_sent_when_it_is_back(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    n_tasks = 2 * PUSH_BATCH + 1
    for task_id in range(20, 20 + n_tasks):
        bench.server.add_task(task_id)
    ask(bench, *range(20, 20 + n_tasks), deadline=time.monotonic() - 1)
    bench.server.is_down = True
    for _ in range(2 * MAX_PUSH_ATTEMPTS):
        assert bench.loop.push(1) == 0
        assert not is_push_due(bench)
        bench.clock.now += 61
    said = [r for r in caplog.records if r.getMessage().startswith("postpone_push")]
    assert len(said) == 1, "once, however often it is tried"
    bench.server.is_down = False
    assert bench.loop.push(1) == n_tasks


def is_push_due(bench: Bench) -> bool:
    with bench.parts.database.read() as connection:
        return predictions.has_due_push(connection, 1, bench.clock())


def test_a_listing_that_leaves_tasks_out_for_once_costs_them_no_prediction(bench: Bench) -> None:
    ask(bench, 9, 8, deadline=time.monotonic() - 1)
    listed, bench.server.tasks = bench.server.tasks, {}
    for _ in range(MAX_PUSH_ATTEMPTS + 1):
        assert bench.loop.push(1) == 0
        bench.clock.now += 61
    bench.server.tasks = listed
    assert bench.loop.push(1) == 2


def test_what_label_studio_refuses_is_tried_ever_more_slowly_until_it_takes_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise LabelStudioRefusedError("no such label", 400)

    ask(bench, 9, deadline=time.monotonic() - 1)
    monkeypatch.setattr(bench.server, "push_predictions", refuse)
    for pause_s in (60, 120, 240, *[300] * MAX_PUSH_ATTEMPTS):
        assert bench.loop.push(1) == 0
        assert "no such label" in bench.status()["last_error"]
        bench.clock.now += pause_s - 1
        assert not is_push_due(bench)
        bench.clock.now += 2
        assert is_push_due(bench)
    monkeypatch.undo()
    assert bench.loop.push(1) == 1


def test_one_prediction_that_label_studio_refuses_keeps_no_other_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_tasks = PUSH_BATCH
    for task_id in range(20, 20 + n_tasks):
        bench.server.add_task(task_id)
    ask(bench, *range(20, 20 + n_tasks), deadline=time.monotonic() - 1)
    push = bench.server.push_predictions

    def refuse_one(project_id: int, listed: Sequence[Any]) -> int:
        if 23 in [task_id for task_id, _ in listed]:
            raise LabelStudioRefusedError("too large", 413)
        return push(project_id, listed)

    monkeypatch.setattr(bench.server, "push_predictions", refuse_one)
    assert bench.loop.push(1) == n_tasks - 1
    assert sorted(task_id for task_id, _ in bench.server.pushed) == [20, 21, 22, *range(24, 20 + n_tasks)]
    assert "too large" in bench.status()["last_error"]
    monkeypatch.undo()
    bench.clock.now += 61
    assert bench.loop.push(1) == 1
    assert bench.status()["last_error"] is None or "worker" in bench.status()["last_error"]


def test_what_somebody_opened_is_answered_however_long_its_image_is_away_and_that_is_said(
    bench: Bench,
) -> None:
    ask(bench, 9, deadline=time.monotonic() - 1)
    bench.images.away.add(9)
    for _ in range(2 * MAX_PUSH_ATTEMPTS):
        assert bench.loop.push(1) == 0
        assert "opened tasks could not be computed" in bench.status()["last_error"]
        bench.loop.reconcile(1)  # reading works, and says nothing of images
        assert "the image of task 9 cannot be had now" in bench.status()["last_error"]
        bench.clock.now += 301
    bench.images.away.clear()
    assert bench.loop.push(1) == 1
    assert "could not be computed" not in str(bench.status()["last_error"])


def test_a_task_that_was_opened_while_its_image_was_away_gets_its_answer_later(bench: Bench) -> None:
    bench.images.away.add(9)
    assert ask(bench, 9) == [None]
    bench.images.away.clear()
    assert bench.loop.push(1) == 1
    bench.images.broken.add(8)
    assert ask(bench, 8) == [None]
    assert not is_push_due(bench), "nothing helps an image that is broken"


def test_label_studio_that_answers_again_ends_the_pause_of_what_somebody_opened(bench: Bench) -> None:
    ask(bench, 9, deadline=time.monotonic() - 1)
    bench.images.unreachable.add(9)
    bench.server.is_down = True
    bench.loop.reconcile(1)
    for _ in range(4):
        bench.loop.push(1)
        bench.clock.now += 301
    bench.loop.push(1)
    assert not is_push_due(bench)
    bench.images.unreachable.clear()
    bench.server.is_down = False
    bench.loop.reconcile(1)
    assert bench.loop.push(1) == 1


def test_an_image_that_is_broken_itself_is_given_up_after_some_tries(bench: Bench) -> None:
    ask(bench, 9, deadline=time.monotonic() - 1)
    bench.images.broken.add(9)
    for _ in range(MAX_PUSH_ATTEMPTS):
        assert is_push_due(bench)
        assert bench.loop.push(1) == 0
        bench.clock.now += 301
    assert not is_push_due(bench)
    assert "could not be computed" not in str(bench.status()["last_error"])


def test_a_task_that_is_gone_is_not_pushed(bench: Bench) -> None:
    ask(bench, 9, deadline=time.monotonic() - 1)
    bench.loop.record(bench.event("TASKS_DELETED", "tasks-deleted", deleted_task_ids=(9,)))
    assert bench.loop.push(1) == 0


def test_tasks_are_ranked_least_sure_first_and_counted(bench: Bench) -> None:
    ask(bench, 9, 8, 7, 6)
    scores = [task["score"] for task in bench.loop.ranked_tasks(1)]
    assert len(scores) == 4
    assert scores == sorted(scores)
    assert bench.loop.ranked_tasks(1, limit=2) == bench.loop.ranked_tasks(1)[:2]
    assert bench.status()["pool"] == {"tasks": 6, "scored": 4, "stale": 0}


def test_nothing_is_asked_where_somebody_painted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    see_nuclei(bench, monkeypatch, 9)
    ask(bench, 9)
    (free,) = bench.loop.ranked_tasks(1)
    assert free["regions"]
    ground = np.zeros((SIDE_PX, SIDE_PX), bool)
    ground[:, 30:] = True
    bench.tell(bench.painted(9, result=[brush("b", ground, "Background")]))
    bench.loop.build_truth(1)
    ask(bench, 9)
    (asked,) = bench.loop.ranked_tasks(1)
    for region in asked["regions"]:
        box = ground[
            region["top"] : region["top"] + region["height"],
            region["left"] : region["left"] + region["width"],
        ]
        assert not box.any()


def test_only_the_difference_to_what_was_sent_becomes_truth(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = see_nuclei(bench, monkeypatch, 9)
    (answer,) = ask(bench, 9)
    assert answer is not None
    (region,) = [r for r in answer["result"] if r["type"] == "brushlabels"]
    shown = decode(region["value"]["rle"], (SIDE_PX, SIDE_PX)) >= 128
    assert np.array_equal(shown, sent)
    changed = shown.copy()
    changed[18:20, 20:44] = True  # added
    changed[40:44, 20:44] = False  # erased
    bench.tell(bench.painted(9, result=[brush(region["id"], changed, "Nucleus", "prediction-changed")]))
    bench.loop.build_truth(1)
    truth = np.array(Image.open(io.BytesIO(bench.loop.picture(1, 9, "truth"))))
    expected = np.full((SIDE_PX, SIDE_PX), IGNORE_INDEX)
    expected[18:20, 20:44] = 1
    expected[40:44, 20:44] = 0
    assert np.array_equal(truth, expected)
    taught = bench.status()["taught"][0]
    assert (taught["task"], taught["corrected"], taught["why_not"]) == (9, 1, "")
    assert taught["pixels"] == {"Background": 4 * 24, "Nucleus": 2 * 24}


def test_an_untouched_prediction_teaches_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    see_nuclei(bench, monkeypatch, 9)
    (answer,) = ask(bench, 9)
    assert answer is not None
    bench.tell(bench.painted(9, result=answer["result"]))
    bench.loop.build_truth(1)
    taught = bench.status()["taught"][0]
    assert (taught["task"], taught["pixels"]) == (9, {})
    assert "accepted without change it teaches nothing" in taught["why_not"]
    before = bench.trainer.specs[-1].examples
    bench.loop.run_round(1)
    assert len(bench.trainer.specs[-1].examples) == len(before)
    assert bench.status()["annotations"] == {"received": 3, "trained": 3, "pending": 0}


def test_a_difference_to_a_class_that_is_gone_does_not_break_the_truth() -> None:
    mask = np.ones((4, 4), bool)
    sent = [SentRegion("a", "Vanished", "r0001-aaaaaaaa", 0, 0, mask)]
    config = parse_label_config(LABEL_CONFIG)
    painting = parse_painting([brush("a", mask, "Nucleus", "prediction-changed")], config, (4, 4))
    assert (combine_paintings([painting], sent, config.schema).label_map == 1).all()


def test_people_who_disagree_are_told() -> None:
    mask = np.ones((4, 4), bool)
    config = parse_label_config(LABEL_CONFIG)
    paintings = [
        parse_painting([brush("a", mask, name)], config, (4, 4)) for name in ("Nucleus", "Background")
    ]
    combined = combine_paintings(paintings, [], config.schema, [7, 3])
    assert (combined.label_map == IGNORE_INDEX).all()
    (finding,) = [finding for finding in combined.findings if finding.code == "annotators-disagree"]
    assert finding.message.startswith("16 ")
    assert "annotators 7 and 3 on 16" in finding.message
    agreed = combine_paintings([*paintings, paintings[0]], [], config.schema, [7, 3, 5])
    assert (agreed.label_map == 1).all()
    assert "annotators-disagree" not in {finding.code for finding in agreed.findings}


def test_a_third_person_is_asked_where_two_differ(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    see_nuclei(bench, monkeypatch, 9)
    mask = np.zeros((SIDE_PX, SIDE_PX), bool)
    mask[10:26, 8:20] = True

    def say(annotation_id: int, person: int, label: str) -> list[Any]:
        result = [brush(f"x{annotation_id}", mask, label)]
        bench.tell(bench.painted(9, user_id=person, result=result, number=annotation_id))
        bench.loop.build_truth(1)
        (answer,) = ask(bench, 9)
        assert answer is not None
        questions = [r for r in answer["result"] if r["type"] == "rectanglelabels"]
        return [r for r in questions if "differ" in r["meta"]["text"][0]]

    assert say(91, 1, "Nucleus") == []
    (question,) = say(92, 2, "Background")
    assert set(question["meta"]["text"][0].removeprefix("Two people differ: ")[:-1].split(" or ")) == {
        "Nucleus",
        "Background",
    }
    left, width = (question["value"][name] * SIDE_PX / 100 for name in ("x", "width"))
    assert (left, left + width) == (2, 26)
    assert say(93, 3, "Nucleus") == []


def test_classes_are_matched_by_their_names_when_the_setup_changed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    see_nuclei(bench, monkeypatch, 9)
    moved = LABEL_CONFIG.replace(
        '<Label value="Background"/>', '<Label value="Ring"/><Label value="Background"/>'
    )
    (answer,) = bench.loop.suggest(1, [bench.task(9)], moved, later())
    assert answer is not None
    labels = {r["value"]["brushlabels"][0] for r in answer["result"] if r["type"] == "brushlabels"}
    assert labels == {"Nucleus"}
    renamed = LABEL_CONFIG.replace("Nucleus", "Cell")
    (answer,) = bench.loop.suggest(1, [bench.task(9)], renamed, later())
    assert answer is not None
    assert [r for r in answer["result"] if r["type"] == "brushlabels"] == []


def test_what_was_sent_is_kept_before_it_is_answered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = see_nuclei(bench, monkeypatch, 9)
    (answer,) = ask(bench, 9)
    assert answer is not None
    with bench.parts.database.read() as connection:
        (region,) = sent_regions.list_sent(connection, 1, 9)
    assert region.region_id in {r["id"] for r in answer["result"]}
    assert region.mask.sum() == mask.sum()


def test_what_the_model_sees_in_an_image_is_kept_for_the_ranking(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(bench, 8)
    see_nuclei(bench, monkeypatch, 9)
    ask(bench, 9)
    with bench.parts.database.read() as connection:
        found = candidates.list_candidates(connection, 1, str(bench.status()["model_version"]), 10)
    looked_at, seen = sorted(found, key=lambda candidate: candidate.task_id)
    assert looked_at.embedding.size > 0
    assert np.linalg.norm(looked_at.embedding.astype(np.float32)) == pytest.approx(1, abs=2e-3)
    assert seen.classes == {"Nucleus"}


def test_the_settings_say_what_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make_bench(tmp_path, send_background=True, max_questions=0)
    bench.submit(1)
    bench.loop.run_round(1)
    see_nuclei(bench, monkeypatch, 9)
    (answer,) = ask(bench, 9)
    assert answer is not None
    labels = sorted(r["value"]["brushlabels"][0] for r in answer["result"])
    assert labels == ["Background", "Nucleus"]
    bench.close()


def test_the_same_is_asked_in_every_process(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    bench.submit(1)
    assert bench.loop.run_round(1) is not None
    (first,) = ask(bench, 9)
    with bench.parts.database.write() as connection:
        connection.execute(sa.delete(tables.predictions))
    (again,) = ask(bench, 9)
    assert bench.images.opened.count(9) == 2
    assert first is not None
    assert [region for region in first["result"] if region["type"] == "rectanglelabels"]
    assert first == again
    bench.close()


def test_an_answer_of_a_version_that_counts_no_more_displaces_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, suggester = bench.status()["model_version"], bench.loop._suggester
    bench.submit(3)
    bench.loop.run_round(1)
    predict = suggester.predict

    def roll_back_meanwhile(*given: Any, **more: Any) -> Prediction:
        monkeypatch.setattr(suggester, "predict", predict)
        bench.loop.rollback(1, first)
        ask(bench, 9)
        return predict(*given, **more)

    monkeypatch.setattr(suggester, "predict", roll_back_meanwhile)
    (late,) = ask(bench, 9)
    assert late is not None  # who asked has it, and what was sent is remembered
    assert late["model_version"] != first
    assert [task["task"] for task in bench.loop.ranked_tasks(1)] == [9]


def test_a_rolled_back_model_answers_at_once(bench: Bench) -> None:
    first = bench.status()["model_version"]
    bench.submit(3)
    bench.loop.run_round(1)
    bench.loop.rollback(1, first)
    (answer,) = ask(bench, 9)
    assert answer is not None
    assert answer["model_version"] == first


def test_a_damaged_model_gives_no_answer_and_no_error(bench: Bench) -> None:
    for weights in (bench.parts.settings.data_dir / "projects").rglob("*.safetensors"):
        weights.write_bytes(b"not weights")
    assert ask(bench, 9) == [None]


def test_the_overlay_shows_the_image_and_tints_what_the_model_sees(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    see_nuclei(bench, monkeypatch, 9)
    (answer,) = ask(bench, 9)
    assert answer is not None
    drawn = np.array(Image.open(io.BytesIO(bench.loop.picture(1, 9, "overlay"))))
    seen = np.repeat(bench.images.open(1, 9, {}), 3, axis=2)
    (region,) = [r for r in answer["result"] if r["type"] == "brushlabels"]
    nuclei = decode(region["value"]["rle"], (SIDE_PX, SIDE_PX)) >= 128
    assert np.array_equal(drawn[~nuclei], seen[~nuclei])
    assert (drawn[nuclei] != seen[nuclei]).any(axis=1).all()


def test_an_overlay_is_small_however_large_the_image(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "OVERLAY_PX", 32)
    assert Image.open(io.BytesIO(bench.loop.picture(1, 1, "overlay"))).size == (32, 32)


def test_an_overlay_follows_the_colours_of_a_changed_setup(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    see_nuclei(bench, monkeypatch, 1)
    before = bench.loop.picture(1, 1, "overlay")
    nucleus = '<Label value="Nucleus"/>'
    setup = LABEL_CONFIG.replace(nucleus, f'<Label value="Cell"/>{nucleus}')
    bench.loop.connect(1, CREATED, setup, "http://label-studio", "token")
    assert bench.loop.picture(1, 1, "overlay") != before


def test_pictures_are_made_once_per_version(bench: Bench) -> None:
    picture = bench.loop.picture(1, 1, "uncertainty")
    bench.images.opened.clear()
    assert bench.loop.picture(1, 1, "uncertainty") == picture
    assert bench.images.opened == []
    assert make_picture(1)[0].shape == (SIDE_PX, SIDE_PX, 1)
    assert math.isfinite(len(picture))
