"""Named background tasks of a long-lived part: supervised, and ended with it.

A TaskGroup ends all its tasks when one fails; a hub must go on. So each task here is a boundary
of its own: what it did not handle itself is logged with the task's name, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class Tasks:
    """The background tasks of one part."""

    def __init__(self) -> None:
        self._running: dict[asyncio.Task[Any], None] = {}  # in the order of their start
        self._closed = False

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run ``coroutine`` as a task of that name; after aclose() nothing starts any more."""
        task = self._start(coroutine, name)
        task.add_done_callback(_report)
        return task

    async def unbroken(self, coroutine: Coroutine[Any, Any, T], name: str) -> T:
        """Run it to its end, even if who waits for it is cancelled; its errors are the waiter's."""
        return await asyncio.shield(self._start(coroutine, name))

    def _start(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        if self._closed:
            coroutine.close()
            message = f"task {name} was started after its owner had closed"
            raise asyncio.CancelledError(message)
        task = asyncio.create_task(coroutine, name=name)
        self._running[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.pop(task, None)

    async def settle(self, deadline_s: float) -> bool:
        """Wait until nothing runs any more, also nothing started meanwhile; whether it is so."""
        try:
            async with asyncio.timeout(deadline_s):
                while self._running:
                    await asyncio.wait(self._running)
        except TimeoutError:
            return False
        return True

    async def aclose(self) -> None:
        """Cancel what runs and wait until it has ended."""
        self._closed = True
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _report(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("task failed", task=task.get_name(), exc_info=error)
