"""A project in Label Studio that works with Brushloop: made new, or repaired; every step may be repeated."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from ml_backend.command.folder_of_images import FolderImages, sort_images
from ml_backend.config import Settings
from ml_backend.errors import LabelConfigError, LabelStudioRefusedError, ServiceError
from ml_backend.label_studio.admin import LabelStudioAdmin
from ml_backend.label_studio.client import LabelStudioClient
from ml_backend.label_studio.connection import Connection
from ml_backend.label_studio.label_config import add_background, find_config, parse_label_config
from ml_backend.label_studio.payloads import WEBHOOK_KEY_HEADER
from ml_backend.label_studio.project_order import is_our_title

DEFAULT_CONFIG = Path(__file__).parents[1] / "label_config.xml"

CONNECTED = "Connected"

SCORED_ORDER, FIXED_ORDER = "Uncertainty sampling", "Sequential sampling"
"""Label Studio's words for how the label stream chooses; it keeps them with the project."""

SETUP_TIMEOUT_S = 120.0
"""Label Studio asks the backend several times while it connects, and unpacks uploads before it answers."""


@dataclass(frozen=True)
class ProjectPlan:
    """What the project should be like. With `project_id`, that project is repaired.

    A `label_config` of None leaves the one that the project has.
    """

    title: str
    backend_url: str
    label_config: str | None = None
    images: FolderImages | None = None
    project_id: int | None = None
    order_tasks: bool | None = None  # whether the label stream follows the scores; None leaves it as it is
    add_background: bool = False  # to a labeling setup that has one label and nothing to tell it from


def set_up_project(
    connection: Connection,
    plan: ProjectPlan,
    settings: Settings,
    report: Callable[[str], None] = lambda message: None,
) -> int:
    """Check everything, then make it: labeling setup, backend, webhook, instruction, images. Returns the id.

    A project that was made for this and cannot be connected is deleted again: nothing half-made stays.
    """
    admin = LabelStudioAdmin(connection)
    report(f"Label Studio at {connection.url} knows the token: it belongs to {admin.check_token()}")
    label_config = _check_setup(connection, plan)
    is_new = plan.project_id is None and admin.find_project(plan.title) is None
    project_id = _ensure_project(admin, plan, label_config)
    report(f"project {project_id} has a labeling setup that Brushloop can work with")
    try:
        _connect(admin, project_id, plan.backend_url, settings)
    except ServiceError:
        if is_new:
            admin.delete_project(project_id)
            report(f"project {project_id} was new and is removed again, because it could not be connected")
        raise
    report(f"project {project_id} is connected to {plan.backend_url}, its webhook too")
    report(_instruct(admin, project_id))
    if plan.images is not None:
        _upload(admin, project_id, plan.images, report)
    if plan.order_tasks is not None:
        admin.set_project_fields(project_id, sampling=SCORED_ORDER if plan.order_tasks else FIXED_ORDER)
        how = "least sure first" if plan.order_tasks else "in the order of its images"
        report(f"the label stream of project {project_id} shows tasks {how}")
    return project_id


def run_setup(
    settings: Settings,
    project_id: int | None,
    title: str,
    config_path: Path | None,
    images: Path | None,
    backend_url: str,
    console: Console,
    order_tasks: bool | None = None,
    add_background: bool = False,
) -> None:
    """`brushloop setup`: the same, for a person who watches."""
    if settings.label_studio_api_key is None:
        raise ServiceError(
            "a token of Label Studio is needed: make a personal access token at "
            f"{settings.label_studio_url}/user/account and set LABEL_STUDIO_API_KEY to it; LABEL_STUDIO_URL "
            "names the server"
        )
    config = config_path.read_text() if config_path else None
    if config is None and project_id is None:
        config = read_default_config()
    address = backend_url.rstrip("/")
    sorted_images = sort_images(images, settings, imports_rest=True) if images is not None else None
    plan = ProjectPlan(title, address, config, sorted_images, project_id, order_tasks, add_background)
    key = settings.label_studio_api_key.get_secret_value()

    def report(line: str) -> None:
        console.print(f"[green]✓[/] {escape(line)}", highlight=False, soft_wrap=True)

    with closing(Connection(settings.label_studio_url, key, timeout_s=SETUP_TIMEOUT_S)) as connection:
        found = set_up_project(connection, plan, settings, report)
    console.print(
        f"annotate at {settings.label_studio_url}/projects/{found}/data", highlight=False, soft_wrap=True
    )
    if images is not None and sorted_images is not None and sorted_images.to_import:
        _import_rest(settings, found, images, sorted_images.to_import)


def _import_rest(settings: Settings, project_id: int, folder: Path, rest: tuple[Path, ...]) -> None:
    """Bring in what cannot be uploaded, which needs the data folder of the server."""
    from ml_backend.command.import_command import report, run_import
    from ml_backend.command.import_tasks import Choices

    report(run_import(settings, project_id, folder, Choices(), only=rest))


def read_default_config() -> str:
    """The labeling setup with Background, Nucleus, Uncertain and Reviewed."""
    return DEFAULT_CONFIG.read_text()


def webhook_headers(settings: Settings) -> dict[str, str]:
    """Label Studio sends no credentials with webhooks unless they are written into the webhook itself."""
    auth = basic_auth(settings)
    if auth is None:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(":".join(auth).encode()).decode("ascii")}


def basic_auth(settings: Settings) -> tuple[str, str] | None:
    """User and password that the backend asks for, when both are set."""
    if settings.basic_auth_user is None or settings.basic_auth_pass is None:
        return None
    return settings.basic_auth_user, settings.basic_auth_pass.get_secret_value()


def _check_setup(connection: Connection, plan: ProjectPlan) -> str | None:
    """The labeling setup to write, None where the project keeps its own; raises when it cannot work."""
    label_config = plan.label_config
    if label_config is None:
        if plan.project_id is None:
            raise ValueError("a new project needs a label_config")
        label_config = LabelStudioClient(connection).get_project(plan.project_id).label_config
    try:
        parse_label_config(label_config)
    except LabelConfigError as error:
        mended = add_background(label_config)
        if find_config(mended)[0] is None:
            advice = "Give the project another labeling setup with --config"
        elif plan.add_background:
            return mended
        else:
            advice = "Run this again with --add-background, and it is done"
        raise LabelConfigError(f"{error}. {advice}".rstrip(". ")) from None
    return plan.label_config


def _ensure_project(admin: LabelStudioAdmin, plan: ProjectPlan, label_config: str | None) -> int:
    if plan.project_id is None:
        return admin.ensure_project(plan.title, str(label_config)).project_id
    fields: dict[str, object] = {"show_collab_predictions": True}
    if label_config is not None:
        fields["label_config"] = label_config
    return admin.set_project_fields(plan.project_id, **fields).project_id


def _instruct(admin: LabelStudioAdmin, project_id: int) -> str:
    """Give annotators an instruction, unless people wrote one; says which of the two."""
    if admin.ensure_instruction(project_id):
        return f"project {project_id} shows annotators how to paint, correct and answer"
    return (
        f"project {project_id} keeps the instruction that it has; to get Brushloop's, empty it in Label "
        "Studio (Settings, Annotation) and run this again"
    )


def _upload(
    admin: LabelStudioAdmin,
    project_id: int,
    images: FolderImages,
    report: Callable[[str], None],
) -> None:
    """Upload what can be uploaded, and list the rest."""
    n_uploaded = admin.upload_images(project_id, images.usable)
    n_there = len(images.usable) - n_uploaded
    report(f"{n_uploaded} images were uploaded" + (f", {n_there} were there already" if n_there else ""))
    for path, problem in images.left_out:
        report(f"{path.name} was left out: {problem}")


def _connect(admin: LabelStudioAdmin, project_id: int, backend_url: str, settings: Settings) -> None:
    """Backend and webhook, with the credentials that each of them needs."""
    try:
        admin.ensure_backend(project_id, backend_url, basic_auth(settings))
    except LabelStudioRefusedError as refusal:
        if "health check failed" not in str(refusal):
            raise
        raise ServiceError(
            f"Label Studio cannot reach a backend at {backend_url}; start one with `brushloop serve "
            "--with-worker`, or name with --url an address that Label Studio's machine can reach"
        ) from None
    _remove_earlier(admin, project_id, backend_url)
    _check_backend(admin, project_id, backend_url)
    # An earlier key stays: the backend knows it already, and events that are under way bring it.
    key = admin.find_webhook_key(project_id) or secrets.token_urlsafe(24)
    headers = {**webhook_headers(settings), WEBHOOK_KEY_HEADER: key}
    admin.ensure_webhook(project_id, f"{backend_url}/webhook", headers)


def _remove_earlier(admin: LabelStudioAdmin, project_id: int, backend_url: str) -> None:
    """Label Studio asks the first backend only, so an earlier address of Brushloop has to go.

    So does a second row of this address, which a call that was sent twice may leave. Removing a backend
    leaves its webhook behind.
    """
    is_here = False
    for row in admin.list_backends(project_id):
        is_ours = row.url.rstrip("/") == backend_url
        if is_ours and is_here:
            admin.delete_backend(row.backend_id)
        is_here = is_here or is_ours
        if is_our_title(row.title) and not is_ours:
            admin.delete_backend(row.backend_id)
            for webhook_id, address in admin.list_webhooks(project_id).items():
                if address.rstrip("/") == f"{row.url.rstrip('/')}/webhook":
                    admin.delete_webhook(webhook_id)


def _check_backend(admin: LabelStudioAdmin, project_id: int, backend_url: str) -> None:
    rows = admin.list_backends(project_id)
    backend = next(row for row in rows if row.url.rstrip("/") == backend_url)
    if backend.state != CONNECTED:
        raise ServiceError(
            f"Label Studio cannot use the backend at {backend_url}: {backend.error_message or backend.state}"
        )
    if not backend.is_first:
        raise ServiceError(
            f"project {project_id} has another backend, {rows[0].title!r} at {rows[0].url}, before this one, "
            "and Label Studio asks the first only; remove it in the project's settings, under Model, and run "
            "this again"
        )
