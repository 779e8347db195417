"""Ports for servers that are started some time later, or again where they were.

What the system gives out it gives to the next who asks, as soon as nobody listens there: a server
that is stopped for a moment would find another test's in its place.
"""

from __future__ import annotations

import itertools
import os
import socket

_FIRST, _COUNT = 10_000, 20_000  # below what the system gives out
# Of processes that were started together each begins somewhere else.
_numbers = itertools.count(os.getpid() % 64 * 311)


def free() -> int:
    """A port of the loopback that nobody listens at, and that nobody else is given."""
    for _ in range(_COUNT):
        port = _FIRST + next(_numbers) % _COUNT
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise RuntimeError("there is no free port")
