"""Ports for servers that are started in a moment, by runs side by side."""

from __future__ import annotations

import random

from ml_backend.command.child_process import find_free_port

HOST = "127.0.0.1"

FROM_HERE, BELOW = 10_000, 32_000
"""Below the ports that the kernel gives away: those may be anybody's before a server has started on one."""

_chance = random.SystemRandom()
"""Not a seeded one: runs side by side would ask for the same ports."""

_given: set[int] = set()


def free_port() -> int:
    """A port that nobody has, and that was not given to somebody who has not taken it yet."""
    while True:
        port = find_free_port(HOST, _chance.randrange(FROM_HERE, BELOW))
        if port not in _given:
            _given.add(port)
            return port
