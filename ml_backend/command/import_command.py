"""The command `brushloop import`: files of cameras and microscopes become tasks of a project."""

from __future__ import annotations

import logging
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from ml_backend.command.options import ProjectNumber, data_dir_option, settings_of
from ml_backend.config import Settings
from ml_backend.errors import NotFoundError, ServiceError

if TYPE_CHECKING:
    from ingest.masks import MaskRules
    from ml_backend.command.import_folder import Imported
    from ml_backend.command.import_tasks import Choices
    from ml_backend.storage.projects import Project

console = Console()

TIMEOUT_S = 120.0
HEX_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


def read_colours(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[Any, ...]:
    """Names or #rrggbb, one per channel."""
    from ingest.stretch import NAMED

    found = []
    for text in (word.strip() for word in (value or "").lower().split(",") if word.strip()):
        if text not in NAMED and not HEX_COLOUR.fullmatch(text):
            raise click.BadParameter(
                f"{text!r} is no colour: give #rrggbb or one of {', '.join(NAMED)}", ctx, param
            )
        is_hex = text not in NAMED
        found.append(tuple(bytes.fromhex(text[1:])) if is_hex else NAMED[text])
    return tuple(found)


@click.command("import")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--project", type=ProjectNumber(min=1), required=True, help="Where the tasks go.")
@click.option("--axes", help="What the pages of files are that do not say it, such as ZYX or CYX.")
@click.option(
    "--tile", type=click.IntRange(128, 8192), help="Cut images larger than this many pixels a side."
)
@click.option(
    "--range",
    "number_range",
    type=(float, float),
    help="The two values of float and 32-bit files that become 0 and 65535; else each file's own extremes.",
)
@click.option(
    "--percentiles",
    type=(click.FloatRange(0, 100), click.FloatRange(0, 100)),
    default=(0.2, 99.8),
    show_default=True,
    help="What people see as black and as white, per channel.",
)
@click.option("--colours", callback=read_colours, help="Of the channels: green,magenta,#ff8000,none.")
@click.option(
    "--masks",
    type=click.Path(exists=True, path_type=Path),
    help="Folder of label PNG or TIFF, or a file of COCO's or Label Studio's: annotations from the start.",
)
@click.option("--labels", help="What values of masks mean: 0=Background,1=Nucleus.")
@click.option("--instances", help="Each value of a mask but 0 is an object of this class.")
@click.option("--ignore", type=int, multiple=True, help="A value of masks of which nothing is known.")
@click.option("--partial", is_flag=True, help="Nothing is known where masks have no object.")
@data_dir_option
def import_images(
    folder: Path,
    project: int,
    axes: str | None,
    tile: int | None,
    number_range: tuple[float, float] | None,
    percentiles: tuple[float, float],
    colours: tuple[tuple[int, int, int], ...],
    masks: Path | None,
    labels: str | None,
    instances: str | None,
    ignore: tuple[int, ...],
    partial: bool,
    data_dir: Path | None,
) -> None:
    """Make tasks of the images in FOLDER and the folders in it; what is there already is left as it is.

    What cannot be brought in is listed with its reason, and the exit code is 1.
    """
    from ingest.masks import MaskRules
    from ml_backend.command.import_masks import parse_labels
    from ml_backend.command.import_tasks import Choices

    settings = settings_of(data_dir=data_dir)
    for name, pair in (("--range", number_range), ("--percentiles", percentiles)):
        if pair is not None and not pair[0] < pair[1]:
            raise click.BadParameter(
                f"the first has to be below the second, not {pair[0]:g} and {pair[1]:g}", param_hint=name
            )
    choices = Choices(axes, tile, number_range, percentiles, colours)
    if labels and instances:
        raise click.BadParameter(
            "values are either classes or objects of one", param_hint="--labels, --instances"
        )
    rules = MaskRules(parse_labels(labels) if labels else {}, instances, frozenset(ignore), partial)
    report(run_import(settings, project, folder, choices, masks, rules))


def run_import(
    settings: Settings,
    project_id: int,
    folder: Path,
    choices: Choices,
    masks: Path | None = None,
    rules: MaskRules | None = None,
    only: tuple[Path, ...] | None = None,
) -> Imported:
    """Look at what is there, bring in what is not (`only` these files), and show how far it is."""
    from ingest.masks import MaskRules
    from ml_backend.command.found_files import FoundFiles, find_files
    from ml_backend.command.import_folder import FolderImport, Present, Target, check_image_key
    from ml_backend.command.import_masks import MaskFolder, is_mask_name
    from ml_backend.command.import_tasks import WORDS
    from ml_backend.label_studio.client import LabelStudioClient
    from ml_backend.label_studio.connection import Connection
    from ml_backend.label_studio.image_frame import ImageLimits
    from ml_backend.label_studio.label_config import parse_label_config
    from ml_backend.label_studio.uploads import Uploads
    from ml_backend.storage.artifacts import Artifacts

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a file is said once, by us
    is_beside = masks is not None and masks.resolve() == folder.resolve()
    found = find_files(folder, without=None if is_beside else masks) if only is None else FoundFiles(only)
    if is_beside:
        images = tuple(path for path in found.images if not is_mask_name(path))
        found = replace(found, images=images)
    known = find_known(settings, project_id)
    with closing(Connection(settings.label_studio_url, api_key(settings), timeout_s=TIMEOUT_S)) as connection:
        client = LabelStudioClient(connection)
        config = parse_label_config(client.get_project(project_id).label_config)
        check_image_key(config.image_key, WORDS)
        target = Target(
            Uploads(connection, project_id, address_prefix(known.hostname)),
            config.image_key,
            Artifacts(settings.data_dir, known.folder).sources,
            ImageLimits(settings.max_image_mb * 1_000_000, settings.max_image_megapixels * 1_000_000),
        )
        present = Present(client.iter_task_summaries(project_id), config.image_key)
        names = [path.relative_to(folder).as_posix() for path in found.images]
        said = None
        if masks is not None:
            plain = rules or MaskRules()
            said = MaskFolder(masks, plain, config, names, choices.axes, beside_images=is_beside)
        work = FolderImport(folder, target, choices, present, said)
        with Progress(console=console, transient=True) as progress:
            bar = progress.add_task("import", total=len(found.images))
            done = work.run(found.images, lambda path: progress.advance(bar))
    done.left_out += found.left_out
    if said is not None:
        done.left_out += [*said.left_out, *said.unused()]
        done.remarks += said.remarks
    if found.n_others:
        done.remarks.append((str(folder), f"{found.n_others} files in it are no images and were passed over"))
    return done


def report(done: Imported) -> None:
    """Say what became of the files; ends with 1 where one was left out."""
    was_there = f", {done.n_there} were there already" if done.n_there else ""
    masks = f", {done.n_masks} of all have a mask from here" if done.n_masks else ""
    _say(f"[green]✓[/] {done.n_tasks} tasks of {done.n_files} files were made{was_there}{masks}")
    for name, remark in done.remarks:
        _say(f"[cyan]note:[/] {escape(name)}: {escape(remark)}")
    for name, problem in done.left_out:
        _say(f"[yellow]left out:[/] {escape(name)}: {escape(problem)}")
    if done.left_out:
        raise click.exceptions.Exit(1)


def find_known(settings: Settings, project_id: int) -> Project:
    """The project as the server that works in this data folder knows it."""
    from ml_backend.outside import connect
    from ml_backend.storage.database import migrate
    from ml_backend.storage.projects import get_project

    database = connect(settings)
    with closing(database):
        migrate(database, settings.data_dir)
        try:
            with database.read() as connection:
                return get_project(connection, project_id)
        except NotFoundError:
            raise NotFoundError(
                f"the data folder {settings.data_dir} knows no project {project_id}: connect it first with "
                f"`brushloop setup {project_id}`, and give this command the DATA_DIR of the server"
            ) from None


def api_key(settings: Settings) -> str:
    """The credential; raises where there is none."""
    if settings.label_studio_api_key is None:
        raise ServiceError(
            "a token of Label Studio is needed: set LABEL_STUDIO_API_KEY, as for `brushloop setup`"
        )
    return settings.label_studio_api_key.get_secret_value()


def address_prefix(hostname: str) -> str:
    """The path that people's address of Label Studio has, which its own addresses of uploads begin with.

    >>> address_prefix("https://lab.example/studio/")
    '/studio'
    """
    from urllib.parse import urlsplit

    return urlsplit(hostname).path.rstrip("/")


def _say(line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True)
