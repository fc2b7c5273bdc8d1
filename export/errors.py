"""What can go wrong on the way out.

::

    BrushloopError
    └── ExportError     something cannot be written in this form, or an extra for it is not installed
"""

from __future__ import annotations

import importlib
from typing import Any

from core.errors import BrushloopError


class ExportError(BrushloopError):
    """A result or a model cannot be given in the form that was asked for."""


def import_extra(module: str, extra: str) -> Any:
    """Import a package that only one way out needs; raises `ExportError` where it is absent."""
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise ExportError(
            f"this needs {package}: install it with `pip install 'brushloop[{extra}]'`"
        ) from None
