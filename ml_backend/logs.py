"""How log lines look: one per event, verb first, then `key=value`. Secrets are never among the values."""

from __future__ import annotations

import logging
import sys
import time

from ml_backend.config import Settings

FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s"
CHATTY = ("huey", "alembic", "httpx", "httpcore", "PIL", "numba", "werkzeug", "waitress")
"""Libraries whose every step is of no interest to who runs this."""


def set_up_logging(settings: Settings) -> None:
    """Log to standard error, in UTC."""
    formatter = logging.Formatter(FORMAT, datefmt="%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
