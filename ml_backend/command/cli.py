"""The command `brushloop`. Each command reads its options and calls the part that does the work."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

import click
from rich.console import Console
from rich.markup import escape

from core.errors import BrushloopError
from ml_backend.command.child_process import ChildProcess, keep_running
from ml_backend.command.export_command import export
from ml_backend.command.export_model_command import export_model
from ml_backend.command.import_command import import_images
from ml_backend.command.options import (
    NewFolder,
    ProjectNumber,
    data_dir_option,
    project_argument,
    settings_of,
    url_option,
)
from ml_backend.command.predict_command import predict
from ml_backend.command.service_client import ServiceClient
from ml_backend.config import Settings, calm_idle_threads, child_environment
from simulation.command import simulate

console = Console()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="brushloop")
def commands() -> None:
    """Active learning for image segmentation with Label Studio."""


@commands.command()
@data_dir_option
@click.option("--label-studio-port", type=int, default=8080, show_default=True)
@click.option("--port", type=int, default=9090, show_default=True, help="Port of the backend.")
def up(data_dir: Path | None, label_studio_port: int, port: int) -> None:
    """Start Label Studio, the backend, its worker and a demo project, until Ctrl-C."""
    from ml_backend.command.local_stack import run_stack

    run_stack(settings_of(data_dir=data_dir), (label_studio_port, port), console, _stop_on_signals())


@commands.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=9090, envvar="PORT", show_default=True)
@data_dir_option
@click.option("--with-worker", is_flag=True, help="Train here too, in a process of its own.")
def serve(host: str, port: int, data_dir: Path | None, with_worker: bool) -> None:
    """Answer Label Studio: webhooks, predictions, status."""
    settings = settings_of(data_dir=data_dir)
    from ml_backend.bootstrap import build_app
    from ml_backend.logs import set_up_logging
    from ml_backend.web.server import bind
    from ml_backend.web.server import serve as serve_app

    set_up_logging(settings)
    try:
        listener = bind(host, port)
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another with --port"
        ) from None
    with closing(listener):
        app = build_app(settings)
        if not with_worker:
            serve_app(app, settings, listener)
            return
        with _worker_beside(settings):
            serve_app(app, settings, listener)


@commands.command()
@data_dir_option
def worker(data_dir: Path | None) -> None:
    """Train and push predictions; any number of workers may run."""
    settings = settings_of(data_dir=data_dir)
    from ml_backend.logs import set_up_logging
    from ml_backend.worker import run_worker

    set_up_logging(settings)
    run_worker(settings, _stop_on_signals())


@commands.command()
@click.argument("target", type=NewFolder())
@data_dir_option
def backup(target: Path, data_dir: Path | None) -> None:
    """Copy database and files into the new folder TARGET, while everything runs."""
    from ml_backend.command.backup import back_up

    back_up(settings_of(data_dir=data_dir), target)


@commands.command()
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@data_dir_option
def restore(source: Path, data_dir: Path | None) -> None:
    """Bring the backup SOURCE back into an empty data folder."""
    from ml_backend.command.backup import restore as bring_back

    bring_back(settings_of(data_dir=data_dir), source)


@commands.command()
@click.argument("project", type=ProjectNumber(min=1))
@data_dir_option
@click.confirmation_option(prompt="Remove everything that Brushloop keeps of this project?")
def forget(project: int, data_dir: Path | None) -> None:
    """Remove what Brushloop keeps of a PROJECT; Label Studio is not touched."""
    from ml_backend.outside import open_outside
    from ml_backend.storage.projects import forget_project, get_project

    outside = open_outside(settings_of(data_dir=data_dir))
    with closing(outside.database), outside.database.write() as connection:
        known = get_project(connection, project)
        forget_project(connection, project)
    outside.artifacts(known).remove()
    console.print(f"project {project} is forgotten")


@commands.command()
@project_argument
@click.option("--title", default="Brushloop", show_default=True, help="Title of a new project.")
@click.option(
    "--config",
    "config_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Labeling setup (XML) to use instead of the default one.",
)
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with images to upload; those that are there already are left out.",
)
@click.option(
    "--order-tasks/--no-order-tasks",
    default=None,
    help="Have the label stream show first what the model is least sure of; else it is left as it is.",
)
@click.option(
    "--add-background",
    is_flag=True,
    help="Add a Background label to a labeling setup that has one label and nothing to tell it from.",
)
@url_option
def setup(
    project: int | None,
    title: str,
    config_path: Path | None,
    images: Path | None,
    order_tasks: bool | None,
    add_background: bool,
    url: str | None,
) -> None:
    """Create a Label Studio project, or repair PROJECT: images, backend, webhook, token."""
    from ml_backend.command.setup_project import run_setup

    settings = settings_of()
    backend_url = url or settings.brushloop_url
    run_setup(
        settings, project, title, config_path, images, backend_url, console, order_tasks, add_background
    )


@commands.command()
@project_argument
@click.option("--watch", is_flag=True, help="Stay and follow, until Ctrl-C.")
@url_option
def status(project: int | None, watch: bool, url: str | None) -> None:
    """Show what a project has learnt and what it needs."""
    from ml_backend.status import status_view

    client = _client(url)
    if project is None and not watch and len(known := client.projects()) != 1:
        console.print(status_view.render_projects(known) if known else "no project is connected yet")
        return
    project_id = client.choose_project(project)
    if watch:
        status_view.watch(lambda: client.status(project_id), console)
    console.print(status_view.render_status(client.status(project_id)))


@commands.command()
@project_argument
@url_option
def train(project: int | None, url: str | None) -> None:
    """Start a round now, although the conditions for one are not met."""
    client = _client(url)
    project_id = client.choose_project(project)
    client.train(project_id)
    follow = f"brushloop status {project_id} --watch" + (f" --url {url}" if url else "")
    console.print(
        f"a round of project {project_id} is queued; follow it with `{follow}`",
        highlight=False,
        soft_wrap=True,
    )


@commands.command()
@click.argument("model_version")
@project_argument
@url_option
def rollback(model_version: str, project: int | None, url: str | None) -> None:
    """Make an earlier MODEL_VERSION current again."""
    client = _client(url)
    project_id = client.choose_project(project)
    client.rollback(project_id, model_version)
    console.print(f"project {project_id} works with {model_version} again")


commands.add_command(simulate)
commands.add_command(predict)
commands.add_command(export)
commands.add_command(export_model)
commands.add_command(import_images)


def main() -> None:
    """The command's entry point: what a person did wrong is told in a sentence, not with a traceback."""
    calm_idle_threads()
    try:
        code = commands(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)  # what a shell expects after Ctrl-C
    except BrushloopError as error:
        Console(stderr=True).print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)
    if isinstance(code, int) and code:
        sys.exit(code)  # click hands over the code of a command that ended with one, and does not end


def _client(url: str | None) -> ServiceClient:
    settings = settings_of()
    return ServiceClient(url or settings.brushloop_url, settings)


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    return stop


@contextmanager
def _worker_beside(settings: Settings) -> Iterator[None]:
    """A worker in a process of its own, started again should it die."""
    stop = threading.Event()
    environment = child_environment({"DATA_DIR": str(settings.data_dir.absolute())})

    def start() -> ChildProcess:
        return ChildProcess("the worker", [sys.executable, "-m", "ml_backend.worker"], environment)

    keeper = threading.Thread(target=keep_running, args=(start, stop), name="worker-keeper")
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join()


if __name__ == "__main__":
    main()
