"""Looks at single instances, many of them by one call.

Every instance is looked at every few seconds, so that a fleet of thousands would spend on it all
the calls that a region allows. Those that are due at about the same time are asked about together:
who comes when nobody has asked for a while need not wait, whoever comes after that does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Seen = Mapping[str, Any]
Several = Callable[[list[str]], Awaitable[Mapping[str, Seen]]]

MOST = 200  # values that one filter takes
GATHER_S = 0.02
APART_S = 0.5


class Looks:
    """``several`` says what there is of some ids; those that are not there it leaves out."""

    def __init__(self, several: Several) -> None:
        self._several = several
        self._wanted: dict[str, asyncio.Future[Seen | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._free_at = 0.0

    async def at(self, instance_id: str) -> Seen | None:
        """None if it is not shown; raises what ``several`` raises."""
        if not self._wanted or len(self._wanted) >= MOST:
            self._wanted = {}  # the full one is on its way, or will soon be
            self._begin(self._wanted)
        if instance_id not in self._wanted:
            self._wanted[instance_id] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._wanted[instance_id])

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, wanted: dict[str, asyncio.Future[Seen | None]]) -> None:
        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            for future in wanted.values():
                future.cancel()  # those that have no answer: it was cancelled, maybe unbegun

        task = asyncio.create_task(self._look(wanted), name="looks at instances")
        self._tasks.add(task)
        task.add_done_callback(over)

    async def _look(self, wanted: dict[str, asyncio.Future[Seen | None]]) -> None:
        try:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(GATHER_S, self._free_at - loop.time()))
            self._free_at = loop.time() + APART_S
            if self._wanted is wanted:
                self._wanted = {}
            found = await self._several(list(wanted))
        except Exception as error:  # noqa: BLE001 - whoever waits is to have it, whatever it is
            for future in wanted.values():
                future.set_exception(error)
                future.exception()  # who waited may have gone
            return
        for instance_id, future in wanted.items():
            future.set_result(found.get(instance_id))
