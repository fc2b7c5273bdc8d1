"""One object by clicks or a box: IoU without a model and after 15 and 50 objects; see its --options.

Each object is asked for with a click in its middle and up to two corrections, each in the middle of the
largest error, and with a box as a hand draws it. GrabCut alone and a flood fill get the same prompts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from bench import BenchmarkResult, Goal, Options
from bench.annotator import LabelledImage, PaintedImage, load_sets, paint
from bench.click_answers import baseline, look_at, prompted
from bench.click_dice import click_objects, dice_of, dice_table, learn, to_measurement
from bench.click_limits import limits_of, limits_table
from bench.click_prompts import Answer, click_and_correct, draw_box, flood_fill, grab_cut, overlap
from bench.click_seconds import HandSeconds, by_size, hand_seconds, sizes_table
from bench.domain_sets import MappedImage, load_domains
from core.network.predict import Predictor
from core.prompts.prompt import Known, Prompt

TAKES_ARGUMENTS = True

ASKED: Mapping[str, tuple[str, ...]] = {"camvid": ("Car", "Pedestrian"), "em_membrane": ("Cell",)}
"""Classes whose connected areas are objects; in other sets, all but Background."""

SMALLEST_PX = 30
"""Smaller areas are neither asked for, nor painted, nor ground."""

N_CLICKS = 3
NO_MODEL, GRABCUT, FLOOD = "no model", "GrabCut", "flood fill"
COLUMNS = ("set", "with", "objects", "box", "1 click", "2 clicks", "3 clicks", "of painting", "ms an answer")

WANTED_SHARE = 0.4
WANTED_BOX, WANTED_CLICK, WANTED_ELSEWHERE, WANTED_GAIN = 0.80, 0.85, 0.75, 0.03
NUCLEI = ("fluorescence", "histology")

Sets = Mapping[str, Mapping[str, Sequence[LabelledImage]]]


@dataclass(frozen=True)
class ClickSettings:
    """`objects` per set; `after` are painted objects of the models; a round takes `round_s` or `steps`.

    `sets` are the names to measure, all by default; `alone` leaves GrabCut and the flood fill out.
    `dice` compares a round on painted objects with one on the same objects clicked.
    """

    objects: int = 100
    after: tuple[int, ...] = (15, 50)
    seed: int = 0
    round_s: float = 20.0
    steps: int | None = None
    split: str = "test"
    sets: tuple[str, ...] = ()
    alone: bool = False
    dice: bool = False


def run(options: Options) -> BenchmarkResult:
    settings = ClickSettings(**_parse(options.arguments))
    measurements: list[dict[str, Any]] = []
    learnt: list[dict[str, Any]] = []
    for name, parts in load_clicked(options.data, settings.split).items():
        if settings.sets and name not in settings.sets:
            continue
        for one in _measure_set(parts, settings):
            if "learnt" in one:
                learnt.append({"set": name, **one["learnt"]})
            else:
                measurements.append({"set": name, **one})
    return BenchmarkResult(
        title="Median IoU of the object that was asked for",
        columns=COLUMNS,
        rows=tuple(_row(one) for one in measurements),
        record={"settings": asdict(settings), "measurements": measurements, "learnt": learnt},
        goals=tuple(_goals(measurements)) if options.data and settings.split == "test" else (),
        further=(
            sizes_table(measurements),
            *([limits_table(measurements)] if settings.after else []),
            *([dice_table(learnt)] if learnt else []),
        ),
        notes=() if options.data else ("Generated images: --data DIR measures on real ones.",),
    )


def load_clicked(data: Path | None, split: str) -> Sets:
    """Sets of `NAME_instances.png`, or of label maps whose connected areas are objects."""
    if data is not None and not any(data.glob("*/classes.txt")):
        found: Sets = load_sets(data)
    elif data is None:
        found = load_sets(None)
    else:
        found = dict(_objects_of_maps(data))
    if split == "test":
        return found
    return {name: _judge_by_pool(parts["pool"]) for name, parts in found.items()}


def _judge_by_pool(pool: Sequence[LabelledImage]) -> dict[str, Sequence[LabelledImage]]:
    n_painted = len(pool) * 3 // 4
    return {"pool": pool[:n_painted], "test": pool[n_painted:]}


def _objects_of_maps(data: Path) -> Iterator[tuple[str, dict[str, list[LabelledImage]]]]:
    for domain in load_domains(data):
        ground = domain.schema.background_index
        usual = [name for i, name in enumerate(domain.schema.names) if i != ground]
        if domain.name not in ASKED and ground is None:
            continue  # phases that fill the image have no objects
        for name in ASKED.get(domain.name, usual):
            index = domain.schema.names.index(name)
            parts = {
                part: [_number(one, index) for one in getattr(domain, part)] for part in ("pool", "test")
            }
            yield f"{domain.name} {name}", parts


def _number(one: MappedImage, class_index: int) -> LabelledImage:
    """Connected areas of a class, as objects; small ones get a number below 0."""
    mask = (one.label_map == class_index).astype(np.uint8)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    small = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] < SMALLEST_PX)
    instances = np.where(np.isin(parts, small) & (parts > 0), -1, parts).astype(np.int32)
    return LabelledImage(one.name, one.image, instances)


def _measure_set(
    parts: Mapping[str, Sequence[LabelledImage]], settings: ClickSettings
) -> Iterator[dict[str, Any]]:
    targets = _choose(parts["test"], settings)
    methods: dict[str, Callable[[LabelledImage], Answer]] = {
        FLOOD: lambda one: baseline(one.image, flood_fill),
        GRABCUT: lambda one: baseline(one.image, grab_cut),
        NO_MODEL: lambda one: prompted(*look_at(one.image, None)),
    }
    for name, open_image in methods.items():
        if settings.alone and name != NO_MODEL:
            continue
        yield {"with": name, **_measure(targets, open_image, settings.seed)}
    models = {}
    for n_objects in settings.after:
        models[n_objects] = _learn(_paint(parts["pool"], n_objects, settings), settings)
        yield {"with": f"{n_objects} objects", **_measure_model(targets, models[n_objects], settings.seed)}
    if settings.dice:
        yield {"with": "clicked", "learnt": _compare(parts, models, settings)}


def _measure_model(
    targets: Sequence[tuple[LabelledImage, int]], predictor: Predictor, seed: int
) -> dict[str, Any]:
    known: dict[str, Known] = {}

    def open_image(one: LabelledImage) -> Answer:
        look, known[one.name] = look_at(one.image, predictor)
        return prompted(look, known[one.name])

    return {**_measure(targets, open_image, seed), "limits": limits_of(targets, known)}


def _compare(
    parts: Mapping[str, Sequence[LabelledImage]], models: Mapping[int, Predictor], settings: ClickSettings
) -> dict[str, Any]:
    """Click what the last model was painted for: without a model at first, then with the first one."""
    first, last = settings.after[0], settings.after[-1]
    bare = {one.name for one in _paint(parts["pool"], first, settings)}
    painted = _paint(parts["pool"], last, settings)
    clicked, hand, overlaps = click_objects(
        painted,
        parts["pool"],
        lambda one: prompted(*look_at(one.image, None if one.name in bare else models[first])),
        N_CLICKS,
    )
    painted_dice = dice_of(models[last], parts["test"])
    clicked_dice = dice_of(_learn(clicked, settings), parts["test"])
    return to_measurement(painted_dice, clicked_dice, hand, overlaps)


def _paint(pool: Sequence[LabelledImage], n_objects: int, settings: ClickSettings) -> list[PaintedImage]:
    return paint(pool, n_objects, np.random.default_rng(settings.seed))


def _learn(painted: Sequence[PaintedImage], settings: ClickSettings) -> Predictor:
    return learn(painted, settings.seed, settings.round_s, settings.steps)


def _choose(images: Sequence[LabelledImage], settings: ClickSettings) -> list[tuple[LabelledImage, int]]:
    """Objects of all images in turn, as many as are wanted."""
    rng = np.random.default_rng(settings.seed)
    queues = []
    for one in images:
        numbers, areas = np.unique(one.instances[one.instances > 0], return_counts=True)
        queues.append([(one, int(i)) for i in rng.permutation(numbers[areas >= SMALLEST_PX])])
    chosen: list[tuple[LabelledImage, int]] = []
    while len(chosen) < settings.objects and any(queues):
        chosen += [queue.pop() for queue in queues if queue]
    # An image's objects one after the other: it is looked at once.
    return sorted(chosen[: settings.objects], key=lambda target: target[0].name)


def _measure(
    targets: Sequence[tuple[LabelledImage, int]],
    open_image: Callable[[LabelledImage], Answer],
    seed: int,
) -> dict[str, Any]:
    rng, found, seconds = np.random.default_rng(seed), [], 0.0
    hand: list[HandSeconds] = []
    last: tuple[str, Answer] | None = None
    for labelled, number in targets:
        if last is None or last[0] != labelled.name:
            last = labelled.name, open_image(labelled)
        truth = labelled.instances == number
        began = time.process_time()
        box = overlap(last[1](Prompt(box=draw_box(truth, rng))), truth)
        clicks = click_and_correct(truth, last[1], N_CLICKS)
        seconds += time.process_time() - began
        found.append([box, *clicks])
        hand.append(hand_seconds(truth, clicks))
    return {
        "objects": len(found),
        "median": np.median(found, axis=0).round(4).tolist(),
        "mean": np.mean(found, axis=0).round(4).tolist(),
        "hand_s": {
            "clicked": round(sum(one.clicked_s for one in hand), 1),
            "painted": round(sum(one.painted_s for one in hand), 1),
        },
        "by_size": by_size(hand),
        "cpu_ms": round(1000 * seconds / max(len(found) * (1 + N_CLICKS), 1), 1),
    }


def _row(one: Mapping[str, Any]) -> tuple[Any, ...]:
    share = one["hand_s"]["clicked"] / one["hand_s"]["painted"]
    return one["set"], one["with"], one["objects"], *one["median"], round(share, 2), one["cpu_ms"]


def _goals(measurements: Sequence[Mapping[str, Any]]) -> Iterator[Goal]:
    for one in measurements:
        name, (box, first, second, _) = one["set"], one["median"]
        if one["with"] == NO_MODEL and name in NUCLEI:
            yield Goal(f"{name}, a box, no model: {box:.3f}, wanted {WANTED_BOX}", box >= WANTED_BOX)
        if one["with"] == "15 objects":
            wanted = WANTED_CLICK if name in NUCLEI else WANTED_ELSEWHERE
            yield Goal(f"{name}, a click after 15 objects: {first:.3f}, wanted {wanted}", first >= wanted)
            gain = second - first
            text = f"{name}, the second click: {gain:+.3f}, wanted +{WANTED_GAIN}"
            yield Goal(text, gain >= WANTED_GAIN)
            share = one["hand_s"]["clicked"] / one["hand_s"]["painted"]
            yield Goal(
                f"{name}, seconds of painting: {share:.2f}, wanted {WANTED_SHARE}", share <= WANTED_SHARE
            )


def _parse(arguments: tuple[str, ...]) -> dict[str, Any]:
    parsed = _options.main(arguments, "python -m bench click", standalone_mode=False)
    if not isinstance(parsed, dict):  # --options was answered
        raise SystemExit(0)
    return parsed


def _numbers(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    return tuple(int(part) for part in value.split(",") if part.strip())


def _names(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


@click.command(context_settings={"help_option_names": ["--options"], "show_default": True})
@click.option("--objects", default=ClickSettings.objects, type=click.IntRange(1), help="Asked for per set.")
@click.option("--after", default="15,50", callback=_numbers, help="Painted objects of the models.")
@click.option("--sets", default="", callback=_names, help="Names with commas between; all by default.")
@click.option("--alone", is_flag=True, help="Without GrabCut and the flood fill, which take longest.")
@click.option("--dice", is_flag=True, help="Also learn from clicked objects, beside the same ones painted.")
@click.option("--seed", default=ClickSettings.seed, type=int)
@click.option("--round", "round_s", default=ClickSettings.round_s, help="Seconds of a round.")
@click.option("--steps", type=click.IntRange(1), help="Rounds end after so many steps instead.")
@click.option(
    "--split",
    type=click.Choice(("pool", "test")),
    default=ClickSettings.split,
    help="What judges; `pool`, for choices: its last quarter, which nobody then paints in.",
)
def _options(**values: Any) -> dict[str, Any]:
    """Options of this benchmark, beside --data and --json."""
    return values
