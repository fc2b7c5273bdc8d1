"""Fixtures: the same suites over both ways to run Brushloop."""

from __future__ import annotations

from service_backends import servers, service_backend

__all__ = ["servers", "service_backend"]
