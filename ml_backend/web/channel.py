"""One connection of waitress: what is refused before the app sees it says so as every other failure does."""

from __future__ import annotations

import json
import logging
from typing import Any

from waitress.channel import HTTPChannel
from waitress.task import ErrorTask
from waitress.utilities import Error

from ml_backend.processes.remedies import describe_temporary
from ml_backend.processes.scratch import forget_lost_temporary_folder
from ml_backend.web.app import RETRY_AFTER_S, error_document

log = logging.getLogger(__name__)


class _ErrorTask(ErrorTask):  # type: ignore[misc]  # waitress has no types
    """What waitress refuses before the app sees it, in the form of all other failures."""

    def execute(self) -> None:
        refused = self.request.error
        is_told = refused.code < 500 or isinstance(refused, _NoRoomForBodyError)
        document = error_document(f"{refused.reason}: {refused.body}" if is_told else refused.reason)
        log.warning(
            "refuse_request status=%d id=%s error=%r", refused.code, document["id"], document["error"]
        )
        body = json.dumps(document).encode()
        self.status = f"{refused.code} {refused.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        if refused.code == 503:
            self.response_headers.append(("Retry-After", RETRY_AFTER_S))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _NoRoomForBodyError(Error):  # type: ignore[misc]
    code, reason = 503, "Service Unavailable"


class Channel(HTTPChannel):  # type: ignore[misc]
    """Large bodies go into a temporary file; where none can be written, the caller is told, not cut off."""

    request: Any
    error_task_class = _ErrorTask

    def received(self, data: bytes) -> Any:
        try:
            return super().received(data)
        except ConnectionError:
            raise  # the caller is gone
        except OSError as error:
            forget_lost_temporary_folder()
            self._refuse(_NoRoomForBodyError(describe_temporary(error)))
            return True

    def _refuse(self, error: Error) -> None:
        with self.requests_lock:
            request, self.request = self.request, None
            request.error, request.completed = error, True
            self.requests.append(request)
            if len(self.requests) == 1:  # otherwise its turn comes after the others
                self.server.add_task(self)
