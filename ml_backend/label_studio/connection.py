"""One authenticated way to a Label Studio server.

The SDK knows the two kinds of credentials: a personal access token is exchanged for an access token of 300 s,
a legacy key is sent as it is. What it does not do is done here: a time limit on every call, one more try
with a fresh access token after a 401, no retries that could store something twice, and errors of our own
that never hold a secret.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import httpx
from label_studio_sdk.base_client import LabelStudioBase
from label_studio_sdk.core.api_error import ApiError

from ml_backend.errors import LabelStudioError, LabelStudioRefusedError, LabelStudioUnavailableError
from ml_backend.label_studio.network import make_patient
from ml_backend.label_studio.retry_after import AskedToWaitError
from ml_backend.processes.patience import check_stop, patience

DEFAULT_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 5.0
LONGEST_CALL_FACTOR = 4
"""A whole call may take so many times the limit for one wait: an answer may drip, too."""

MOST_ANSWER_MB = 512
"""Of one answer, unpacked. A page of tasks takes some kB, one task with hundreds of masks some MB."""

LONGEST_DETAIL = 300
"""Label Studio repeats whole predictions in its complaints."""

_BUSY = (408, 429)

_Answer = TypeVar("_Answer")


def task_address(project_id: int, *servers: str) -> str:
    """Where people open a task of a project, up to its number: at the first of `servers` that is of the web.

    Examples
    --------
    >>> task_address(3, "", "https://paint.example.org/ls/") + "12"
    'https://paint.example.org/ls/projects/3/data?task=12'
    >>> task_address(3, "javascript:alert(1)")
    ''
    """
    for server in servers:
        try:
            url = httpx.URL(server)
        except (httpx.InvalidURL, ValueError):
            continue
        if url.scheme in ("http", "https") and url.host and not url.userinfo:
            path = f"{url.path.rstrip('/')}/projects/{project_id}/data?task="
            return str(url.copy_with(raw_path=path.encode(), fragment=None))
    return ""


class Connection:
    """A server and a credential for it; safe to share between threads.

    Parameters
    ----------
    url : address of the server, with a path prefix where it has one
    api_key : personal access token or legacy key
    timeout_s : limit for each wait on the network
    transport : another way to send, for tests
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._api_key = api_key.strip()
        self._longest_s = LONGEST_CALL_FACTOR * timeout_s
        self._http = make_patient(
            httpx.Client(
                timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
                follow_redirects=False,  # the credential goes nowhere else
                transport=transport,
                event_hooks={"response": [_read_within]},
            )
        )
        self._sdk: LabelStudioBase | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        self._http.close()

    def authorization(self) -> str:
        """The value of the `Authorization` header that is good right now."""
        return self.call(lambda sdk: self._headers(sdk)["Authorization"])

    def renew(self) -> None:
        """Forget the access token: the next call gets a fresh one."""
        with self._lock:
            self._sdk = None

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        content: bytes | None = None,
        files: Sequence[tuple[str, Any]] | None = None,
    ) -> Any:
        """Send one call and return its JSON, or None for an answer without a body.

        For calls that the SDK lacks, or that it makes slow: it walks through every number of a brush stream.
        `content` is JSON that is already encoded.
        """

        def send(sdk: LabelStudioBase) -> Any:
            headers = self._headers(sdk)
            if content is not None:
                headers["Content-Type"] = "application/json"
            response = self._http.request(
                method,
                self.url + path,
                headers=headers,
                params=params,
                json=json,
                content=content,
                files=files,
            )
            if response.status_code >= httpx.codes.MULTIPLE_CHOICES:
                raise ApiError(status_code=response.status_code, body=_body_of(response))
            return response.json() if response.content else None

        return self.call(send)

    def call(self, use: Callable[[LabelStudioBase], _Answer]) -> _Answer:
        """Let `use` work with the SDK's client; once more with a fresh access token after a 401.

        Raises `RoundCancelledError` where one is asked to stop, because that is not Label Studio's failure.
        """
        try:
            return self._attempt(use)
        except LabelStudioRefusedError as refusal:
            if refusal.status != httpx.codes.UNAUTHORIZED:
                raise
        self.renew()
        return self._attempt(use)

    def _attempt(self, use: Callable[[LabelStudioBase], _Answer]) -> _Answer:
        check_stop()
        try:
            with patience(self._longest_s):
                return use(self._client())
        except ApiError as error:
            raise self._refusal(error.status_code or 0, error.body) from None
        except httpx.TimeoutException:
            check_stop()
            raise LabelStudioUnavailableError(f"Label Studio at {self.url} did not answer in time") from None
        except AskedToWaitError as error:
            raise LabelStudioUnavailableError(f"Label Studio at {self.url} {error}") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = self._without_secrets(str(error) or type(error).__name__)
            raise LabelStudioUnavailableError(
                f"Label Studio at {self.url} cannot be reached: {reason}"
            ) from None
        except (ValueError, RecursionError):  # JSON was expected; a proxy's page came, or brackets alone
            raise LabelStudioUnavailableError(
                f"{self.url} answered with something that is not JSON; is it Label Studio?"
            ) from None

    def _client(self) -> LabelStudioBase:
        with self._lock:
            if self._sdk is None:
                self._sdk = LabelStudioBase(
                    base_url=self.url + "/",  # without the slash the SDK loses a path prefix
                    api_key=self._api_key,
                    httpx_client=self._http,
                    max_retries=0,
                )
            return self._sdk

    @staticmethod
    def _headers(sdk: LabelStudioBase) -> dict[str, str]:
        headers: dict[str, str] = sdk._client_wrapper.get_headers()
        return headers

    def _refusal(self, status: int, body: Any) -> LabelStudioError:
        detail = self._without_secrets(_detail_of(body))
        if status == httpx.codes.UNAUTHORIZED:
            return LabelStudioRefusedError(
                f"Label Studio at {self.url} refuses the credential (401{detail}); set LABEL_STUDIO_API_KEY "
                "to a personal access token of this server, or to a legacy key where those are enabled",
                status,
            )
        if 300 <= status < 400:
            return LabelStudioRefusedError(
                f"{self.url} redirects ({status}); set LABEL_STUDIO_URL to the address it redirects to",
                status,
            )
        if status == httpx.codes.NOT_FOUND:
            return LabelStudioRefusedError(
                f"Label Studio at {self.url} knows nothing of what was asked for (404{detail}); see that"
                " nobody deleted it, that this credential may see it, and LABEL_STUDIO_URL",
                status,
            )
        if status in _BUSY or status >= 500 or status == 0:
            return LabelStudioUnavailableError(f"Label Studio at {self.url} is failing ({status}{detail})")
        return LabelStudioRefusedError(f"Label Studio refused ({status}{detail})", status)

    def _without_secrets(self, text: str) -> str:
        return text.replace(self._api_key, "***") if self._api_key else text


def _read_within(response: httpx.Response) -> None:
    """Read the body, within a limit: one without an end, or packed zeros, would take all memory."""
    parts, n_bytes = [], 0
    for part in response.iter_bytes():
        n_bytes += len(part)
        if n_bytes > MOST_ANSWER_MB * 1_000_000:
            raise httpx.DecodingError(
                f"it sent more than {MOST_ANSWER_MB} MB for one answer, as none of its answers has",
                request=response.request,
            )
        parts.append(part)
    response._content = b"".join(parts)  # what `read` does, which then finds it done


def _body_of(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _detail_of(body: Any) -> str:
    """What the server says about the refusal, on one short line."""
    if not isinstance(body, Mapping):
        return ""
    reasons = [body.get("detail"), body.get("validation_errors")]
    text = "; ".join(" ".join(str(reason).split()) for reason in reasons if reason)
    return f": {text[:LONGEST_DETAIL]}" if text else ""
