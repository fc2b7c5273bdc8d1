"""The command `brushloop simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from simulation.acquisitions import ACQUISITIONS
from simulation.perception import NOISE_LEVELS

DEFAULT_ARMS = ("entropy", "class-stratified", "foreground-66", "random")


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where results go."
)
@click.option("--demo", is_flag=True, help="Fill FOLDER with generated images first.")
@click.option(
    "--acquisition",
    "acquisitions",
    multiple=True,
    help=f"How places are chosen; may be given several times. One of {', '.join(ACQUISITIONS)}, or all. "
    f"[default: {', '.join(DEFAULT_ARMS)}]",
)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Repetitions.")
@click.option("--rounds", type=click.IntRange(1), default=8, show_default=True)
@click.option("--objects-per-round", type=click.IntRange(1), default=10, show_default=True)
@click.option("--noise", type=click.Choice(tuple(NOISE_LEVELS)), default="medium", show_default=True)
@click.option(
    "--answer",
    type=click.Choice(("paint", "review")),
    default="paint",
    show_default=True,
    help="Paint places from nothing, or correct the pre-annotation and review it.",
)
@click.option(
    "--steps", type=click.IntRange(1), default=60, show_default=True, help="Of training, per round."
)
@click.option("--budget-s", type=click.FloatRange(min=0, min_open=True), help="Seconds instead of steps.")
@click.option(
    "--test-share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.3,
    show_default=True,
    help="Part of the images that only measures, where FOLDER has no folder `test`.",
)
@click.option("--images-per-round", type=click.IntRange(1), default=24, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Of torch [all cores].")
def simulate(folder: Path, out: Path, demo: bool, acquisitions: tuple[str, ...], **options: Any) -> None:
    """Study on images with known objects how much painting each way to choose places takes.

    FOLDER holds NAME.png with a 16-bit NAME_instances.png each (0 is background, 1..n one object each). A
    simulated annotator paints in it; nothing else is needed, neither Label Studio nor a server. Killed and
    started again with the same options, it goes on where it was.
    """
    from simulation.plots import can_draw

    # Asked first: hours of rounds must not end at a missing library.
    if not can_draw():
        raise click.ClickException("the plots need matplotlib: pip install 'brushloop[simulate]'")
    run(folder, out, demo, acquisitions or DEFAULT_ARMS, options, Console())


def run(
    folder: Path,
    out: Path,
    demo: bool,
    acquisitions: tuple[str, ...],
    options: dict[str, Any],
    console: Console,
) -> None:
    """Run or go on with a study, and write its report."""
    from simulation.ground_truth import describe, load_study, write_demo
    from simulation.report import write_report
    from simulation.settings import StudySettings
    from simulation.study import find_acquisitions, run_study
    from simulation.summary import to_curves

    test_share, threads = options.pop("test_share"), options.pop("threads")
    arms = ACQUISITIONS if "all" in acquisitions else find_acquisitions(acquisitions, ACQUISITIONS)
    settings = StudySettings(arms, n_threads=threads, **options)
    if demo:
        write_demo(folder)
    pool, test = load_study(folder, test_share)
    about = describe(pool, test)
    console.print(about)
    records = []
    with _progress(console) as progress:
        bar = progress.add_task("", total=len(arms) * settings.seeds * (settings.rounds + 1))
        for record in run_study(settings, pool, test, out):
            records.append(record)
            words = f"{record.arm}, seed {record.seed}, round {record.round}: Dice {record.dice:.3f}"
            progress.update(bar, advance=1, description=words)
    path = write_report(out, to_curves(records), settings.to_record(), about)
    console.print(f"the report is in {path}", soft_wrap=True)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<54}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
