"""Setting a project up in Label Studio: project, images, backend, webhook, and what goes with a new model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_backend.errors import LabelStudioRefusedError, LabelStudioUnavailableError
from ml_backend.label_studio.connection import Connection
from ml_backend.label_studio.instruction import write_instruction
from ml_backend.label_studio.payloads import find_webhook_key, parse_project
from ml_backend.label_studio.project_order import BACKEND_TITLE, is_our_title
from ml_backend.label_studio.uploads import mime_type, plain_name, stored_name, upload_batches
from ml_backend.ports import ProjectRecord

PAGE_SIZE = 100

_FORBIDDEN = 403

_SWITCHES = (
    "Label Studio refuses addresses of private networks by default: start it with ML_BLOCK_LOCAL_IP=false "
    "and SSRF_PROTECTION_ENABLED=false, or give it a public address of Brushloop"
)


@dataclass(frozen=True)
class BackendRow:
    """A connected ML backend. Label Studio asks only the first one of a project: `is_first`."""

    backend_id: int
    url: str
    title: str
    state: str
    error_message: str | None
    is_first: bool


class LabelStudioAdmin:
    """What `brushloop setup` does to a Label Studio server; every method may be repeated."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def check_token(self) -> str:
        """Who the credential belongs to, as an e-mail address; raises when it is refused."""
        user = self._connection.call(lambda sdk: sdk.users.whoami())
        return str(user.email or user.username or user.id)

    def find_project(self, title: str) -> ProjectRecord | None:
        """The oldest project of exactly this title."""
        rows = (row for row in self._list_projects(title) if row.get("title") == title)
        return next((parse_project(row) for row in rows), None)

    def delete_project(self, project_id: int) -> None:
        """Delete a project with all its tasks."""
        self._connection.call(lambda sdk: sdk.projects.delete(project_id))

    def ensure_project(self, title: str, label_config: str) -> ProjectRecord:
        """The project of this title, made or brought to this labeling setup; the oldest one of several."""
        existing = self.find_project(title)
        if existing is not None:
            if existing.label_config == label_config:
                return existing
            return self.set_project_fields(existing.project_id, label_config=label_config)
        new = {"title": title, "label_config": label_config, "show_collab_predictions": True}
        return parse_project(self._connection.request("POST", "/api/projects", json=new))

    def set_project_fields(self, project_id: int, **fields: Any) -> ProjectRecord:
        """Change fields of the project row, such as `model_version`, `sampling` or `label_config`."""
        row = self._connection.request("PATCH", f"/api/projects/{int(project_id)}", json=fields)
        return parse_project(row)

    def ensure_instruction(self, project_id: int) -> bool:
        """Have annotators shown how to work, in a project without an instruction; whether it has this one.

        Words that people wrote stay, and so does whether the instruction is shown.
        """
        row = self._connection.request("GET", f"/api/projects/{int(project_id)}")
        present = str(row.get("expert_instruction") or "").strip()
        wanted = write_instruction(parse_project(row).label_config)
        if not present:
            self.set_project_fields(project_id, expert_instruction=wanted, show_instruction=True)
        return present in ("", wanted)

    def upload_images(self, project_id: int, paths: Sequence[Path]) -> int:
        """Upload images as tasks; files whose name the project has already are left out. Returns how many."""
        present = self._uploaded_names(project_id)
        missing = [path for path in paths if stored_name(path.name) not in present]
        return sum(self._upload(project_id, batch) for batch in upload_batches(missing))

    def list_backends(self, project_id: int) -> tuple[BackendRow, ...]:
        rows = self._connection.call(lambda sdk: sdk.ml.list(project=project_id))
        ordered = sorted(rows, key=lambda row: row.id)
        return tuple(_to_backend(row, is_first=position == 0) for position, row in enumerate(ordered))

    def ensure_backend(
        self, project_id: int, url: str, basic_auth: tuple[str, str] | None = None
    ) -> BackendRow:
        """Connect the backend at `url`, or repair its row; `/health` and `/setup` are called meanwhile.

        A title that names a model stays, because it orders the project.
        """
        fields: dict[str, Any] = {"project": project_id, "url": url, "auth_method": "NONE"}
        fields["is_interactive"] = True  # the page offers smart tools only then
        if basic_auth is not None:
            user, password = basic_auth
            fields |= {"auth_method": "BASIC_AUTH", "basic_auth_user": user, "basic_auth_pass": password}
        existing = [row for row in self.list_backends(project_id) if _same_address(row.url, url)]
        fields["title"] = existing[0].title if existing and is_our_title(existing[0].title) else BACKEND_TITLE
        try:
            if existing:
                self._connection.call(lambda sdk: sdk.ml.update(existing[0].backend_id, **fields))
            else:
                self._connection.call(lambda sdk: sdk.ml.create(**fields))
        except LabelStudioRefusedError as refusal:
            raise _explained(refusal) from None
        for row in self.list_backends(project_id):
            if _same_address(row.url, url):
                return row
        raise LabelStudioUnavailableError(f"Label Studio did not keep the backend {url}")

    def delete_backend(self, backend_id: int) -> None:
        """Disconnect a backend; its webhook stays and has to be deleted too."""
        self._connection.call(lambda sdk: sdk.ml.delete(backend_id))

    def find_webhook_key(self, project_id: int) -> str:
        """The key that an earlier setup wrote into the project's webhook, or nothing."""
        rows = self._connection.call(lambda sdk: sdk.webhooks.list(project=str(project_id)))
        return find_webhook_key([{"headers": row.headers} for row in rows])

    def ensure_webhook(self, project_id: int, url: str, headers: Mapping[str, str] | None = None) -> int:
        """One active webhook to `url` with all actions and these headers; returns its id.

        Connecting a backend makes a webhook without credentials, and removing a backend leaves it behind:
        doubles of the same address are deleted.
        """
        fields = {
            "url": url,
            "headers": dict(headers or {}),
            "is_active": True,
            "send_payload": True,
            "send_for_all_actions": True,
        }
        rows = self._connection.call(lambda sdk: sdk.webhooks.list(project=str(project_id)))
        same = sorted(row.id for row in rows if _same_address(row.url, url))
        for double in same[1:]:
            self.delete_webhook(double)
        try:
            if same:
                self._connection.call(lambda sdk: sdk.webhooks.update(same[0], **fields))
                return int(same[0])
            return int(
                self._connection.call(lambda sdk: sdk.webhooks.create(project=project_id, **fields)).id
            )
        except LabelStudioRefusedError as refusal:
            raise _explained(refusal) from None

    def list_webhooks(self, project_id: int) -> dict[int, str]:
        """Address by id of the project's webhooks."""
        rows = self._connection.call(lambda sdk: sdk.webhooks.list(project=str(project_id)))
        return {int(row.id): str(row.url) for row in rows}

    def delete_webhook(self, webhook_id: int) -> None:
        self._connection.call(lambda sdk: sdk.webhooks.delete(webhook_id))

    def _list_projects(self, title: str) -> Iterator[Mapping[str, Any]]:
        """Projects whose title contains `title`, oldest first."""
        page = 1
        while True:
            params = {"title": title, "ordering": "id", "page": page, "page_size": PAGE_SIZE}
            answer = self._connection.request("GET", "/api/projects", params=params)
            yield from answer["results"]
            if not answer.get("next"):
                return
            page += 1

    def _uploaded_names(self, project_id: int) -> set[str]:
        rows = self._connection.request(
            "GET", f"/api/projects/{int(project_id)}/file-uploads", params={"all": "true"}
        )
        return {plain_name(str(row.get("file", ""))) for row in rows}

    def _upload(self, project_id: int, paths: Sequence[Path]) -> int:
        with ExitStack() as files:
            parts = [
                (f"file{i}", (path.name, files.enter_context(path.open("rb")), mime_type(path)))
                for i, path in enumerate(paths)
            ]
            answer = self._connection.request("POST", f"/api/projects/{int(project_id)}/import", files=parts)
        return int(answer["task_count"])


def _same_address(one: object, other: str) -> bool:
    return str(one).rstrip("/") == other.rstrip("/")


def _to_backend(row: Any, *, is_first: bool) -> BackendRow:
    return BackendRow(
        backend_id=int(row.id),
        url=str(row.url),
        title=str(row.title or ""),
        state=str(row.readable_state or row.state or ""),
        error_message=row.error_message or None,
        is_first=is_first,
    )


def _explained(refusal: LabelStudioRefusedError) -> LabelStudioRefusedError:
    if refusal.status != _FORBIDDEN:
        return refusal
    return LabelStudioRefusedError(f"{refusal}. {_SWITCHES}", refusal.status)
