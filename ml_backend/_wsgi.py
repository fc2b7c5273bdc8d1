"""The entry point that Label Studio's own ML backends have: `python ml_backend/_wsgi.py --port 9090`.

Options are those of label-studio-ml as far as they mean something here. A worker for training runs beside it.
`gunicorn --chdir ml_backend _wsgi:app` works too, and then `brushloop worker` has to run somewhere.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent

if not __package__:
    # Started as a file, Python looks for modules beside it: then `import errors` would find ours.
    sys.path[:] = [str(FOLDER.parent), *(p for p in sys.path if Path(p or ".").resolve() != FOLDER)]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line in the way of label-studio-ml."""
    parser = argparse.ArgumentParser(description="Brushloop, a Label Studio ML backend")
    parser.add_argument("-p", "--port", type=int, help="[PORT, or 9090]")
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104  # as label-studio-ml does
    parser.add_argument("-d", "--debug", action="store_true", help="the same as --log-level DEBUG")
    parser.add_argument("--log-level", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    parser.add_argument("--model-dir", metavar="DIR", help="where everything is kept [DATA_DIR]")
    parser.add_argument("--basic-auth-user", metavar="USER", help="[BASIC_AUTH_USER]")
    parser.add_argument("--basic-auth-pass", metavar="PASSWORD", help="[BASIC_AUTH_PASS]")
    parser.add_argument("--check", action="store_true", help="build the backend, and stop if it cannot be")
    return parser.parse_args(arguments)


def to_environment(options: argparse.Namespace) -> dict[str, str]:
    """The settings that the options stand for, so that the worker gets them too."""
    given = {
        "LOG_LEVEL": "DEBUG" if options.debug else options.log_level,
        "DATA_DIR": options.model_dir,
        "BASIC_AUTH_USER": options.basic_auth_user,
        "BASIC_AUTH_PASS": options.basic_auth_pass,
    }
    return {name: value for name, value in given.items() if value}


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    options = parse_arguments()
    os.environ.update(to_environment(options))
    if options.check:
        from ml_backend.wsgi import build

        build()
    from ml_backend.command import cli

    sys.argv = ["brushloop", "serve", "--with-worker", "--host", options.host]
    sys.argv += ["--port", str(options.port)] if options.port is not None else []
    cli.main()


def __getattr__(name: str) -> Any:
    """`app`, built when a WSGI server asks for it."""
    from ml_backend import wsgi

    return getattr(wsgi, name)


if __name__ == "__main__":
    main()
