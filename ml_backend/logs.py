"""How log lines look: one per event, verb first, then `key=value`. Secrets are never among the values."""

from __future__ import annotations

import faulthandler
import logging
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from ml_backend.config import Settings

FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s"
CHATTY = ("huey", "alembic", "httpx", "httpcore", "PIL", "numba", "werkzeug", "waitress")
"""Libraries whose every step is of no interest to who runs this."""


FIRST_SILENCE_S, LONGEST_SILENCE_S = 60.0, 3600.0
"""A library that says the same again is heard after the first, and then ever more seldom."""


class Repeats(logging.Filter):
    """Lets a chatty library say the same trouble once, in one line, and again at growing intervals.

    Without it Huey writes 80 kB of tracebacks a second while Redis is away.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[tuple[str, str], tuple[float, float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.split(".")[0] not in CHATTY:
            return True
        error = record.exc_info[1] if record.exc_info else None
        message = record.getMessage()
        key, now = (record.name, type(error).__name__ if error else message), self._clock()
        until, silence_s, n_unsaid = self._said.get(key, (now, FIRST_SILENCE_S, 0))
        if now < until:
            self._said[key] = (until, silence_s, n_unsaid + 1)
            return False
        self._said[key] = (now + silence_s, min(2 * silence_s, LONGEST_SILENCE_S), 0)
        cause = (
            f" cause={str(error).splitlines()[0] if str(error) else type(error).__name__}" if error else ""
        )
        record.msg, record.args = f"{message}{cause} unsaid={n_unsaid}", ()
        record.exc_info = record.exc_text = None
        return True


def set_up_logging(settings: Settings) -> None:
    """Log to standard error, in UTC."""
    formatter = logging.Formatter(FORMAT, datefmt="%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.addFilter(Repeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    # A bus error, as of a database file that became immutable, ends the process: not without a word.
    if sys.__stderr__ is not None:
        with suppress(OSError, ValueError):  # it is no file, or closed
            faulthandler.enable(sys.__stderr__)
