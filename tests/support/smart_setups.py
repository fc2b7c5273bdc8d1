"""The default labeling setup with other smart tools than its own."""

from __future__ import annotations

from ml_backend.command.setup_project import read_default_config


def with_smart_rectangle() -> str:
    """A smart rectangle called `box` in the place of the smart key point."""
    shown = read_default_config().replace('KeyPointLabels name="click"', 'RectangleLabels name="box"')
    return shown.replace("</KeyPointLabels>", "</RectangleLabels>")
