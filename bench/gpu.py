"""A GPU beside the processor: steps of a round, Dice, and seconds a megapixel of large images; see --options.

Both train on the same strokes and answer for the same images, each where it trained. The processor has the
two cores that all figures are for, the GPU what the machine has: it needs them to cut patches.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from bench import BenchmarkResult, Figures, Goal, Options
from bench.domain_learners import learn_round, measure_learnt
from bench.domain_sets import DomainSet, load_domains
from bench.peers import N_THREADS
from bench.swaths import paint_swaths
from core.network.checkpoint import Checkpoint
from core.network.device import choose_compute
from core.network.mixture import Share
from core.network.predict import Predictor
from core.rounds import RoundSettings

TAKES_ARGUMENTS = True

SIDE_PX = 4000
"""Of the image that is put together to time answers."""

N_SWATHS, BUDGET_S = 40, 20.0
REPEATS = 3
ROUND_KEYS = ("set", "device", "steps", "train_s", "dice", "ece", "predict_s_per_megapixel")
FEWEST_STEPS, MOST_S_PER_MPX, SAME_DICE = 1500, 0.02, 0.01


def run(options: Options) -> BenchmarkResult:
    parsed = _options.main(options.arguments, "python -m bench gpu", standalone_mode=False)
    if not isinstance(parsed, dict):  # --options was answered
        raise SystemExit(0)
    devices = [name for name in parsed["devices"].split(",") if name != "cuda" or torch.cuda.is_available()]
    names = tuple(name for name in parsed["sets"].split(",") if name)
    rounds: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for domain in load_domains(options.data, names):
        made = {device: measure_round(domain, device, parsed["seed"]) for device in devices}
        rounds += [record for _, record in made.values()]
        checkpoint = count_all(next(iter(made.values()))[0])
        image = tile_up([one.image for one in domain.pool], parsed["side"])
        for device in devices:
            answers += measure_answers(domain.name, checkpoint, image, device)
    first = Figures(
        f"A first round of {BUDGET_S:.0f} s on {N_SWATHS} swaths",
        ("set", "device", "steps", "seconds", "mean Dice", "ECE", "s/Mpx"),
        tuple(tuple(record[key] for key in ROUND_KEYS) for record in rounds),
    )
    second = Figures(
        f"Answers for an image of {parsed['side']} px, all learners counting",
        ("set", "device", "looks", "maps", "s/Mpx"),
        tuple((a["set"], a["device"], a["looks"], a["maps"], a["s_per_mpx"]) for a in answers),
    )
    has_gpu = "cuda" in devices
    return BenchmarkResult(
        first.title,
        first.columns,
        first.rows,
        {"rounds": rounds, "answers": answers, "gpu": torch.cuda.get_device_name() if has_gpu else None},
        goals_of(rounds, answers) if has_gpu else (),
        () if has_gpu else ("torch sees no GPU here.",),
        (second,),
    )


def measure_round(domain: DomainSet, device: str, seed: int) -> tuple[Checkpoint, dict[str, Any]]:
    """A first round on one device, and what its model says of the test images there."""
    n_threads = N_THREADS if device == "cpu" else None
    settings = RoundSettings(BUDGET_S, BUDGET_S, None, n_threads, seed, device=device)
    painted = paint_swaths(domain.pool, N_SWATHS, np.random.default_rng(seed))
    checkpoint, learnt = learn_round(painted, domain.schema, settings, 1)
    return checkpoint, {
        "set": domain.name,
        "device": device,
        "shares": {name: share.weight for name, share in checkpoint.shares.items()},
        **measure_learnt(learnt, domain.test, domain.schema),
    }


def count_all(checkpoint: Checkpoint) -> Checkpoint:
    """The same model, whose learners all count: a round may have left one out."""
    shares = {name: Share(0.3, share.temperature) for name, share in checkpoint.shares.items()}
    return replace(checkpoint, shares=shares)


def tile_up(images: Sequence[NDArray[Any]], side_px: int) -> NDArray[Any]:
    """A square image of other ones, side by side and below one another."""
    height, width = (min(image.shape[axis] for image in images) for axis in (0, 1))
    n_rows, n_columns = -(-side_px // height), -(-side_px // width)
    chosen = [images[i % len(images)][:height, :width] for i in range(n_rows * n_columns)]
    rows = [np.concatenate(chosen[row * n_columns : (row + 1) * n_columns], axis=1) for row in range(n_rows)]
    return np.ascontiguousarray(np.concatenate(rows)[:side_px, :side_px])


def measure_answers(
    name: str, checkpoint: Checkpoint, image: NDArray[Any], device: str
) -> list[dict[str, Any]]:
    """Seconds a megapixel from the image in memory to its maps in memory: the median of some."""
    predictor = Predictor(checkpoint, N_THREADS, compute=choose_compute(device, "auto"))
    megapixels = image.shape[0] * image.shape[1] / 1e6
    found = []
    for n_looks, keep_details in ((1, False), (1, True), (4, True)):
        predictor.predict(image, n_augmentations=n_looks, keep_details=keep_details)  # compiles, allocates
        seconds = []
        for _ in range(REPEATS if device != "cpu" else 1):
            began = time.perf_counter()
            predictor.predict(image, n_augmentations=n_looks, keep_details=keep_details)
            seconds.append(time.perf_counter() - began)
        maps = "all" if keep_details else "classes, confidence, entropy"
        about = {"set": name, "device": device, "looks": n_looks, "maps": maps}
        found.append({**about, "s_per_mpx": median(seconds) / megapixels})
    return found


def goals_of(rounds: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]]) -> tuple[Goal, ...]:
    on_gpu = [r for r in rounds if r["device"] == "cuda"]
    beside = {r["set"]: r["dice"] for r in rounds if r["device"] == "cpu"}
    slowest = max(a["s_per_mpx"] for a in answers if a["device"] == "cuda" and a["looks"] == 1)
    fewest = min(r["steps"] for r in on_gpu)
    goals = [
        Goal(f"at least {FEWEST_STEPS} steps in a round: {fewest}", fewest >= FEWEST_STEPS),
        Goal(f"at most {MOST_S_PER_MPX} s/Mpx with one look: {slowest:.4f}", slowest <= MOST_S_PER_MPX),
    ]
    if beside:
        lost = max(beside[r["set"]] - r["dice"] for r in on_gpu)
        goals.append(Goal(f"Dice within {SAME_DICE} of the processor's: {-lost:+.4f}", lost <= SAME_DICE))
    return tuple(goals)


@click.command(context_settings={"help_option_names": ["--options"], "show_default": True})
@click.option("--sets", default="", help="Names with commas between; all by default.")
@click.option("--devices", default="cuda,cpu", help="Those to measure, with commas between.")
@click.option("--side", default=SIDE_PX, type=click.IntRange(64), help="Side of the large image in px.")
@click.option("--seed", default=0)
def _options(**values: Any) -> dict[str, Any]:
    """Options of this benchmark, beside --data and --json."""
    return values
