"""One more generation for Python's garbage collector: objects that survive a full collection are
frozen.

A hub of thousands of workers has hundreds of thousands of objects, and nearly all of them stay. A
full collection visits each, which stops the hub for a third of a second, and whatever makes many
objects (a provider's long list, a fleet that reconnects) causes several in a row. So objects that
survive a full collection are frozen, and later collections visit only newer ones. Cyclic garbage
among the frozen objects, such as a closed connection, is found when their number has doubled since
they were all visited last: there is never more garbage than live objects.
"""

from __future__ import annotations

import gc
from typing import Any

_FULL = 2  # the oldest of the collector's own generations


def rest() -> None:
    """Until `watch`: what a hub starts with stays, and looking for garbage in it takes a tenth of
    the start."""
    gc.disable()


def watch() -> None:
    """Switch the collector on and start freezing, in this process. The objects that exist now are
    collected and frozen first.
    """
    gc.enable()
    gc.callbacks.append(_Generation().collected)
    gc.collect()


class _Generation:
    """The frozen objects, counted."""

    def __init__(self) -> None:
        self._stayed = 0
        self._next_looks_at_all = True

    def collected(self, phase: str, info: dict[str, Any]) -> None:
        """Callback of the garbage collector; runs in whichever thread it runs in."""
        if phase != "stop" or info["generation"] != _FULL:
            return
        gc.freeze()
        frozen = gc.get_freeze_count()
        if self._next_looks_at_all:  # this one did
            self._stayed = frozen
        self._next_looks_at_all = frozen > 2 * self._stayed
        if self._next_looks_at_all:
            gc.unfreeze()
