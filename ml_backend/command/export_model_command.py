"""The command `brushloop export-model`: a trained model for programs without Brushloop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from ml_backend.command.options import ProjectNumber, data_dir_option, settings_of

if TYPE_CHECKING:
    from export.onnx_check import Agreement
    from ml_backend.command.published_models import FoundModel

console = Console()


ENDINGS = (".onnx", ".zip")


class GraphOrPackage(click.Path):
    """A file to write, whose ending says what is written."""

    name = "file"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(str(super().convert(str(value), param, ctx)))
        if path.suffix.lower() not in ENDINGS:
            problem = f"{path.name!r} has to end with .onnx, or with .zip for a BioImage.IO package"
            raise click.BadParameter(problem, ctx, param)
        return path


@click.command("export-model")
@click.argument("model", metavar="PROJECT|PATH")
@click.option("--version", help="One of the project's versions [the current one].")
@click.option(
    "--out",
    type=GraphOrPackage(dir_okay=False),
    required=True,
    help="FILE.onnx, or FILE.zip for a BioImage.IO package.",
)
@click.option(
    "--kind",
    type=click.Choice(("uint8", "uint16")),
    help="Number type of the images that it is for [that of most images of the project].",
)
@click.option(
    "--looks",
    type=click.IntRange(1, 4),
    default=1,
    show_default=True,
    help="Mirrored samples of the network; `brushloop predict` takes 4, at four times the work.",
)
@click.option("--author", "authors", multiple=True, help="Somebody who made the truth; for the package.")
@click.option("--license", "licence", help="SPDX identifier, as CC-BY-4.0; for the package.")
@data_dir_option
def export_model(
    model: str,
    version: str | None,
    out: Path,
    kind: str | None,
    looks: int,
    authors: tuple[str, ...],
    licence: str | None,
    data_dir: Path | None,
) -> None:
    """Write a project's model, or that of a folder, as ONNX: raw pixels in, calibrated probabilities out.

    Every learner that counts is part of it. What ONNX Runtime says is compared with what torch says before
    the file appears. The model card is written beside it, as FILE.md, or into the package.
    """
    from core.network.checkpoint import load_checkpoint
    from export.onnx_check import export_onnx, first_kind

    found = find_model(model, version, data_dir)
    checkpoint = load_checkpoint(found.folder)
    kind, card = kind or first_kind(checkpoint.statistics), found.read_card(checkpoint)
    if out.suffix.lower() == ".zip":
        from export.bioimageio_package import About, write_package

        about = About(f"Brushloop {found.folder.name}", authors or ("unknown",), licence, card)
        agreements = write_package(checkpoint, out, about, kind, looks)
    else:
        agreements = export_onnx(checkpoint, out, kind, looks)
    n_channels, classes = checkpoint.statistics.n_channels, ", ".join(checkpoint.schema.names)
    lines = [f"{out.name}: {kind}, {n_channels} channels; {classes}", *describe(agreements)]
    if out.suffix.lower() != ".zip":
        _write_card(out.with_suffix(".md"), card, lines)
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _write_card(path: Path, card: str, lines: Sequence[str]) -> None:
    from export.atomic_files import written_whole

    about = "\n".join(f"- {line.strip()}" for line in lines)
    with written_whole(path) as scratch:
        scratch.write_text(f"{card}\n## The graph\n\n{about}\n", encoding="utf-8")


def find_model(model: str, version: str | None, data_dir: Path | None) -> FoundModel:
    """A published model: that of a project, or the one whose folder was given."""
    from ml_backend.command.published_models import FoundModel, find_published

    if model.isascii() and model.isdigit() and not Path(model).is_dir():
        number = ProjectNumber(min=1).convert(model, None, None)
        published = find_published(settings_of(data_dir=data_dir), number, version)
        return FoundModel(published.folder, published)
    if version is not None:
        raise click.UsageError("--version goes with a project's number; a folder holds one version")
    return FoundModel(Path(model))


def describe(agreements: Sequence[Agreement]) -> list[str]:
    """One line per comparison of ONNX Runtime with torch."""
    lines = [
        f"  {one.learner:<8} largest difference {one.largest:.1e}, of 99.9 % below {one.nearly_all:.1e}"
        for one in agreements
    ]
    together = agreements[-1]
    if not together.is_exact:
        lines.append(
            f"  {together.n_beyond} of {together.n_pixels} pixels differ by more than 0.0001: there a "
            "feature meets a threshold of the forest but for rounding"
        )
    return lines
