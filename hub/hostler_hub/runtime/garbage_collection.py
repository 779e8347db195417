"""One more generation for Python's garbage collector: what stays is left alone.

A hub of thousands of workers has hundreds of thousands of objects, and nearly all of them stay. A
full collection looks at each, which holds everything up for a third of a second, and whatever makes
many objects (a provider's long list, a fleet that comes back) causes one after the other. So what
has survived a full collection is frozen: later ones look only at what came since. Garbage in cycles
among the frozen, such as a connection that has ended, is found when there are twice as many of them
as when all were looked at the last time: there is never more of it than of the rest.
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
    """From now on, in this process: it has what it starts with. Returns after a full collection."""
    gc.enable()
    gc.callbacks.append(_Generation().collected)
    gc.collect()


class _Generation:
    """Those who have survived a full collection."""

    def __init__(self) -> None:
        self._stayed = 0
        self._next_looks_at_all = True

    def collected(self, phase: str, info: dict[str, Any]) -> None:
        """Called by the collector, in whichever thread it runs."""
        if phase != "stop" or info["generation"] != _FULL:
            return
        gc.freeze()
        frozen = gc.get_freeze_count()
        if self._next_looks_at_all:  # this one did
            self._stayed = frozen
        self._next_looks_at_all = frozen > 2 * self._stayed
        if self._next_looks_at_all:
            gc.unfreeze()
