"""A running Brushloop server, asked over HTTP by the command line."""

from __future__ import annotations

from typing import Any

import httpx

from ml_backend.config import Settings
from ml_backend.errors import NotFoundError, ServiceError, UnauthorizedError

TIMEOUT_S = 15.0


class ServiceClient:
    """Status, training and rollback of a server; errors say what to do."""

    def __init__(self, url: str, settings: Settings, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        user, password = settings.basic_auth_user, settings.basic_auth_pass
        self._http = httpx.Client(
            base_url=self.url,
            auth=(user, password.get_secret_value()) if user and password else None,
            timeout=TIMEOUT_S,
            transport=transport,
        )

    def projects(self) -> list[dict[str, Any]]:
        return list(self._call("GET", "/api/projects"))

    def status(self, project_id: int) -> dict[str, Any]:
        return dict(self._call("GET", f"/api/projects/{project_id}/status"))

    def train(self, project_id: int) -> None:
        self._call("POST", f"/api/projects/{project_id}/train")

    def rollback(self, project_id: int, model_version: str) -> None:
        self._call("POST", f"/api/projects/{project_id}/rollback", {"model_version": model_version})

    def choose_project(self, project_id: int | None) -> int:
        """The given project, or the only one there is."""
        if project_id is not None:
            return project_id
        known = [int(project["project"]) for project in self.projects()]
        if not known:
            raise NotFoundError(
                f"the server at {self.url} knows no project yet; connect one with `brushloop setup`"
            )
        if len(known) > 1:
            listed = ", ".join(map(str, sorted(known)))
            raise ServiceError(f"there are several projects, name one of them: {listed}")
        return known[0]

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise ServiceError(
                f"no Brushloop server answers at {self.url} ({reason}); start one with `brushloop serve "
                "--with-worker`, or name another with --url or BRUSHLOOP_URL"
            ) from None
        if answer.is_success:
            return self._to_json(answer)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise UnauthorizedError(
                f"{self.url} wants a user and a password: set BASIC_AUTH_USER and BASIC_AUTH_PASS"
            )
        raise ServiceError(self._read_error(answer))

    def _to_json(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError:
            raise ServiceError(
                f"{self.url} answered with something that is not JSON; is it Brushloop?"
            ) from None

    def _read_error(self, answer: httpx.Response) -> str:
        body = self._to_json(answer)
        if isinstance(body, dict) and isinstance(body.get("error"), str):
            return str(body["error"])
        return f"{self.url} answered {answer.status_code}"
