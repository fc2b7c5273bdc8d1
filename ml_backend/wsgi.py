"""For WSGI servers: `gunicorn ml_backend.wsgi:app`, or `waitress-serve --call ml_backend.wsgi:build`.

The app is built when it is first asked for, from the environment; importing this module does nothing.
Give gunicorn threads (`--worker-class gthread --threads 16`, the same number in `WEB_THREADS`) and a
`--timeout` above 100 s: a call to `/predict` may take 80.
"""

from __future__ import annotations

import threading
from typing import Any

from flask import Flask

from ml_backend.config import Settings, calm_idle_threads

_built: dict[str, Flask] = {}
_lock = threading.Lock()


def build() -> Flask:
    """Build an app from the environment."""
    calm_idle_threads()
    # After that, because torch reads the environment when it is imported.
    from ml_backend.bootstrap import build_app
    from ml_backend.logs import set_up_logging

    settings = Settings()
    set_up_logging(settings)
    return build_app(settings)


def __getattr__(name: str) -> Any:
    """`app`, built once per process."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _lock:
        if name not in _built:
            _built[name] = build()
        return _built[name]
