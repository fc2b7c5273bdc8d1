"""One training round, read from top to bottom: truth in, a checked checkpoint and a report out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from core.network.checkpoint import Checkpoint
from core.network.device import choose_compute
from core.network.feature_maps import FeatureMaps
from core.network.map_stores import KeptInMemory, MapStore
from core.network.mixture import HEAD, NETWORK, QUICK, TUNED, Share
from core.network.outputs import Weights
from core.network.unet import build_network
from core.objects.measure import learn_limits
from core.rounds import ExampleSource, RoundSettings
from core.schema import LabelSchema
from core.threads import torch_threads
from core.training.base_evidence import ask_base
from core.training.beginning import Beginning, begin, choose_start, keep_of_base
from core.training.candidate import Judges, settle
from core.training.clock import FEWEST_STEPS, Clock
from core.training.evaluation import HeldOutScore, is_worse, open_held_out, score_blocks
from core.training.loss import class_weights
from core.training.optimiser import Optimised, optimise, thin_out
from core.training.painted_pixels import LONG_FOREST_PIXELS, MOST_FOREST_PIXELS
from core.training.quick_copies import train_copies
from core.training.quick_learners import QuickRound
from core.training.recipe import Recipe
from core.training.round_report import Origin, RoundReport, RoundResult
from core.training.round_truth import check_truth, known_classes, open_examples, painted_classes
from core.training.sampling import (
    IMAGES_OF_LONG_TRAINING,
    IMAGES_PER_ROUND,
    OpenExample,
    collect_areas,
)
from core.training.tuning import Tuning, find_tuned, go_on_tuning, network_part
from core.truth.holdout import has_enough_held_out

Progress = Callable[[float, float], None]
"""Called with the share of the round that is done, 0..1, and the seconds that are left."""


def train_round(
    source: ExampleSource,
    schema: LabelSchema,
    start: Checkpoint | None,
    settings: RoundSettings,
    *,
    now: Callable[[], float],
    should_stop: Callable[[], bool] = lambda: False,
    should_finish: Callable[[], bool] = lambda: False,
    on_progress: Progress = lambda done, eta_s: None,
    recipe: Recipe | None = None,
    store: MapStore | None = None,
) -> RoundResult:
    """Train on a project's annotated images and say whether the result may become the current model.

    Parameters
    ----------
    source : ExampleSource
        Without a sufficient hold-out the round is a draft and learns from all training truth.
    start : Checkpoint or None
        The current model. Its classes and channels may differ from those of this round.
    settings : RoundSettings
        With `max_steps`, steps end the round and not time, and the same seed gives the same weights.
    now : callable
        A clock in seconds that never goes back.
    should_stop : callable
        Asked before every step.
    should_finish : callable
        Asked before every step: training ends there, and what it gave is checked and judged as it is.
    store : MapStore, optional
        Where the encoder's maps of annotated images are kept from round to round.

    Raises
    ------
    DeviceError
        The device of `settings` is not there.
    ImageUnavailableError
        No image could be had, and the reason may pass.
    NotEnoughTruthError
        Fewer than two classes have annotated pixels, or no image could be read.
    RoundCancelledError
        `should_stop` said so.
    NonFiniteLossError
        The loss stopped being a number and could not be recovered.
    """
    began = now()
    recipe, compute = recipe or Recipe(), choose_compute(settings.device, settings.engine)
    draw, initial, patches, hold_out, chance, quick_draw, stacking, large_patches = map(
        np.random.default_rng, np.random.SeedSequence(settings.seed).spawn(8)
    )
    summaries = source.summaries()
    pixels = check_truth(summaries, schema)
    is_draft = not has_enough_held_out(summaries, schema)
    current, start = start, choose_start(start, is_draft)
    if start is None:
        summaries = [replace(summary, is_new=False) for summary in summaries]  # everything is news to it
    learnt, painted = known_classes(start), painted_classes(schema, pixels)
    # A class that the model never saw takes as long to learn as the first ones did, or it costs the others.
    is_warm = start is not None and painted <= learnt
    budget_s = min(settings.warm_budget_s, settings.budget_s) if is_warm else settings.budget_s
    has_network, is_long = NETWORK in settings.learners, TUNED in settings.learners
    clock = Clock(now, began, budget_s, settings.max_steps, settings.learners)
    tunes = is_long and not is_draft  # what its first steps are worth, only a hold-out can tell
    part = network_part(start) if tunes else 1.0

    def report_progress(done: float) -> None:
        on_progress(done, clock.eta_s(done))

    with torch_threads(settings.n_threads):
        n_images = IMAGES_OF_LONG_TRAINING if is_long else IMAGES_PER_ROUND
        examples, skipped = open_examples(source, summaries, draw, n_images)
        blocks, unreadable = open_held_out(source, [] if is_draft else summaries, hold_out)
        beginning = begin(start, schema, examples, initial, recipe.widths, settings.encoder, settings.base)
        threads = torch.get_num_threads() if compute.graphs else None
        maps = FeatureMaps(beginning.statistics, store or KeptInMemory(), compute.device, threads)
        n_steps = clock.head_steps(recipe.head_steps)
        quick = train_copies(
            set(settings.learners) & set(QUICK),
            QuickRound(
                examples,
                len(schema),
                maps,
                pixels,
                clock.quick_pace(),
                should_stop,
                n_steps=n_steps,
                forest_pixels=LONG_FOREST_PIXELS if is_long else MOST_FOREST_PIXELS,
            ),
            [] if is_draft else summaries,
            quick_draw,
        )
        optimised = Optimised(beginning.weights, ())
        held_back = quick.answering.held_back
        base = ask_base(beginning, examples, held_back, is_taught=has_network)
        if has_network:
            network = build_network(beginning.architecture)
            network.load_state_dict(beginning.weights)
            pace = clock.network_pace(part)
            optimised = optimise(
                network,
                examples,
                schema,
                beginning.statistics,
                class_weights(pixels, schema.background_index),
                recipe,
                patches,
                peak_rate=_peak_rate(recipe, beginning.origin, is_warm),
                progress=lambda steps: 1.0 if steps and should_finish() else pace(steps),
                should_stop=should_stop,
                on_step=lambda done: report_progress(done * part),
                compute=compute,
            )
        # One that was never taught a painted class would drown it in the answer.
        can_keep = is_warm and has_network
        tuned, n_tuned = find_tuned(start if can_keep else None, schema, beginning.statistics.n_channels), 0
        if has_network and tunes:
            tuning_pace = clock.tuning_pace()
            work = Tuning(
                examples,
                beginning.statistics,
                pixels,
                lambda steps: 1.0 if should_finish() else tuning_pace(steps),
                should_stop,
                compute.device,
                recipe.augmentation,
                lambda done: report_progress(part + (1 - part) * done),
            )
            unseeing = (quick.judged or quick.answering.learners).get(HEAD)
            tuned, n_tuned = go_on_tuning(tuned, unseeing, work, large_patches)
        n_objects = sum(sum(summary.class_objects) for summary in summaries)
        share = recipe.base_share if has_network else 0.0
        weights = keep_of_base(beginning, optimised.weights, n_objects, share)
        learners = dict(quick.answering.learners)
        if tuned is not None:
            learners[TUNED] = tuned.to_tensors()
        checkpoint = replace(
            _to_checkpoint(beginning, weights, schema, examples, is_draft, settings.seed),
            taught=tuple(n for n in schema.names if n in (learnt | painted if has_network else learnt)),
            learners=learners,
            judged=quick.judged,
            shares={name: Share(0.0) for name in learners},
        )
        checkpoint, new = settle(
            checkpoint,
            optimised.weights,
            Judges(blocks, held_back, quick.answering.seen, base),
            schema,
            compute.exact,
            maps,
            stacking,
            has_network=has_network,
        )
        old = None
        if current is not None:
            seen = maps if current.statistics == maps.statistics else FeatureMaps(current.statistics, store)
            old = score_blocks(current, blocks, schema, compute.exact, seen)

    promoted, reason = judge(current, old, checkpoint, new, chance)
    on_progress(1.0, 0.0)
    report = RoundReport(
        seen={
            "images": len(examples),
            "annotated_images": len(summaries),
            "pixels": dict(zip(schema.names, pixels, strict=True)),
        },
        changed={**_changes(optimised, checkpoint, old, new), "encoder_steps": n_tuned},
        held_out=new.to_record(schema, chance),
        previous_held_out=old.to_record(schema, chance) if old is not None else {},
        loss_curve=thin_out(optimised.losses),
        seconds=round(now() - clock.began, 3),
        promoted=promoted,
        reason=reason,
        draft=is_draft,
        origin=beginning.origin,
        temperature=checkpoint.temperature,
        skipped_images={**skipped, **unreadable},
        classes_without_pixels=tuple(n for n, p in zip(schema.names, pixels, strict=True) if p == 0),
        fingerprint=checkpoint.fingerprint,
        parent=beginning.parent,
        seed=settings.seed,
    )
    return RoundResult(checkpoint, promoted, report)


def judge(
    current: Checkpoint | None,
    old: HeldOutScore | None,
    candidate: Checkpoint,
    new: HeldOutScore,
    rng: np.random.Generator,
) -> tuple[bool, str]:
    """Decide whether `candidate` becomes the current model, and say why in one sentence."""
    if current is None or old is None:
        return True, "It is the first model."
    if candidate.is_draft:
        if current.is_draft or current.schema.names != candidate.schema.names:
            return True, "It is a draft: there is too little truth to hold some out and check it."
        return False, "It is a draft, and the current model was checked on a hold-out."
    if current.is_draft:
        return True, "It is the first model with a hold-out; the current one is an unchecked draft."
    if not len(new.counts):
        return False, "No held-out image could be read, so nothing checked it."
    shared = [i for i, name in enumerate(candidate.schema.names) if name in current.schema.names]
    before, after = old.mean_dice or 0.0, new.mean_dice or 0.0
    numbers = f"held-out Dice {after:.3f}, before {before:.3f}"
    if is_worse(old, new, shared, rng):
        return False, f"It is worse than the current model beyond chance: {numbers}."
    return True, f"It is not worse than the current model: {numbers}."


def _peak_rate(recipe: Recipe, origin: Origin, is_warm: bool) -> float:
    """The largest rate for where the weights come from; with a class they do not know, one in between."""
    if origin == "warm":
        return recipe.warm_rate if is_warm else math.sqrt(recipe.base_rate * recipe.warm_rate)
    return recipe.base_rate if origin == "base" else recipe.peak_rate


def _to_checkpoint(
    beginning: Beginning,
    weights: Weights,
    schema: LabelSchema,
    examples: Sequence[OpenExample],
    is_draft: bool,
    seed: int,
) -> Checkpoint:
    return Checkpoint(
        schema=schema,
        architecture=beginning.architecture,
        weights=weights,
        statistics=beginning.statistics,
        limits=learn_limits(collect_areas(examples, schema)),
        is_draft=is_draft,
        parent=beginning.parent,
        seed=seed,
    )


def _changes(
    optimised: Optimised, checkpoint: Checkpoint, old: HeldOutScore | None, new: HeldOutScore
) -> dict[str, Any]:
    weights = {NETWORK: checkpoint.network_weight, **{n: s.weight for n, s in checkpoint.shares.items()}}
    changes: dict[str, Any] = {
        "steps": len(optimised.losses),
        "fewest_steps": FEWEST_STEPS,
        "weights": {name: round(weight, 3) for name, weight in weights.items()},
    }
    if old is not None and len(new.labels):
        changes["answers_share"] = round(float((old.logits.argmax(1) != new.logits.argmax(1)).mean()), 4)
        changes["mean_dice"] = round((new.mean_dice or 0.0) - (old.mean_dice or 0.0), 4)
    return changes
