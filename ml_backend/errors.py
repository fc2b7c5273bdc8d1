"""The errors of the service, below the core's root.

::

    core.errors.BrushloopError
    └── ServiceError
        ├── PayloadError              400  a body that cannot be understood
        ├── UnauthorizedError         401  credentials missing or wrong
        ├── NotFoundError             404  no such project, task, round or model version
        ├── ConflictError             409  the state of the project does not allow it
        ├── TooLargeError             413  a body or an image above its limit
        ├── LabelConfigError          422  a labeling setup that Brushloop cannot work with
        ├── ImageRefusedError         an image address that is not allowed
        ├── UncheckedCopyError        nobody can tell now which regions a prediction brought along
        ├── DatabaseRefusedError      a database that this process must not work on
        ├── BusyError                 503  too much at once; the same call works later
        └── LabelStudioError
            ├── LabelStudioUnavailableError  503  the server cannot be reached, or is failing
            │   └── LabelStudioImageError    the same, met when an image was wanted
            └── LabelStudioRefusedError      the server answered no, with `status`

`web/app.py` holds the one table that maps them to HTTP.
"""

from __future__ import annotations

from core.errors import BrushloopError, ImageError, ImageUnavailableError


class ServiceError(BrushloopError):
    """Anything the service refuses; the message says what and where, without secrets."""


class PayloadError(ServiceError):
    """A body that is not JSON or lacks what its call needs."""


class UnauthorizedError(ServiceError):
    """Credentials are missing or wrong."""


class NotFoundError(ServiceError):
    """No such project, task, round or model version."""


class ConflictError(ServiceError):
    """The call is right but the state of the project does not allow it."""


class TooLargeError(ServiceError):
    """A body above its limit."""


class LabelConfigError(ServiceError):
    """A labeling setup that Brushloop cannot work with; the message names the tag."""


class DatabaseRefusedError(ServiceError):
    """A database that is damaged, newer, lost, or of another installation: nothing may start on it."""


class BusyError(ServiceError):
    """Too much is being computed at once; the same call works later."""


class UncheckedCopyError(ServiceError):
    """Nobody can tell now which regions of an annotation came with a prediction; later it works."""


class ImageRefusedError(ServiceError, ImageError):
    """An image address that no setting allows."""


class LabelStudioError(ServiceError):
    """A call to Label Studio did not work."""


class LabelStudioUnavailableError(LabelStudioError):
    """Label Studio cannot be reached, or answers with a server error."""


class LabelStudioImageError(LabelStudioUnavailableError, ImageUnavailableError):
    """Label Studio cannot be reached, or is failing, and an image was wanted of it."""


class LabelStudioRefusedError(LabelStudioError):
    """Label Studio answered no; `status` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
