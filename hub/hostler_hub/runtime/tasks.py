"""Named background tasks that belong to one part of the hub, and end with it.

A TaskGroup cancels all its tasks when one fails, but the hub must go on. So an exception that a
task does not handle is logged once with the task's name, and affects no other task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

from hostler_hub.errors import Outage

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class Tasks:
    """The background tasks of one part."""

    def __init__(self) -> None:
        self._running: dict[asyncio.Task[Any], None] = {}  # in the order of their start
        self._closed = False

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run ``coroutine`` as a task of that name. After aclose() nothing is started."""
        task = self._start(coroutine, name)
        task.add_done_callback(_report)
        return task

    async def unbroken(self, coroutine: Coroutine[Any, Any, T], name: str) -> T:
        """Run ``coroutine`` to its end even if the caller is cancelled. Its exceptions reach the
        caller.
        """
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
        """Wait until no task runs, including those started meanwhile. Returns False if the deadline
        passed first.
        """
        try:
            async with asyncio.timeout(deadline_s):
                while self._running:
                    await asyncio.wait(self._running)
        except TimeoutError:
            return False
        return True

    async def aclose(self) -> None:
        """Cancel the running tasks and wait until they have ended."""
        self._closed = True
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _report(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        if isinstance(error, Outage):  # its beginning was logged, and its end will be
            _log.debug("task ended by an outage", task=task.get_name(), reason=str(error))
        else:
            _log.error("task failed", task=task.get_name(), exc_info=error)
