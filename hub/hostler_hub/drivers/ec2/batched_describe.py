"""Describes single EC2 instances, many of them by one call.

The hub inspects every instance every few seconds; with one call each, a fleet of thousands would
use up all the calls that a region allows. So requests that arrive at about the same time share a
call: the first one after a pause is sent after GATHER_S, and calls are at least APART_S apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Described = Mapping[str, Any]
Several = Callable[[list[str]], Awaitable[Mapping[str, Described]]]

MAX_IDS = 200  # how many values one filter takes
GATHER_S = 0.02
APART_S = 0.5


class BatchedDescribe:
    """Collects ids and describes them together. ``several`` maps the ids it is given to their
    descriptions and leaves out instances that do not exist.
    """

    def __init__(self, several: Several) -> None:
        self._several = several
        self._wanted: dict[str, asyncio.Future[Described | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._free_at = 0.0

    async def describe(self, instance_id: str) -> Described | None:
        """Describe one instance. Returns None if EC2 does not show it. Raises what ``several``
        raises.
        """
        if not self._wanted or len(self._wanted) >= MAX_IDS:
            self._wanted = {}  # the full one is on its way, or will soon be
            self._begin(self._wanted)
        if instance_id not in self._wanted:
            self._wanted[instance_id] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._wanted[instance_id])

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, wanted: dict[str, asyncio.Future[Described | None]]) -> None:
        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            for future in wanted.values():
                future.cancel()  # those without an answer: the task was cancelled, maybe unbegun

        task = asyncio.create_task(self._describe(wanted), name="ec2 describe")
        self._tasks.add(task)
        task.add_done_callback(over)

    async def _describe(self, wanted: dict[str, asyncio.Future[Described | None]]) -> None:
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
                future.exception()  # mark it as retrieved: its waiter may be gone
            return
        for instance_id, future in wanted.items():
            future.set_result(found.get(instance_id))
