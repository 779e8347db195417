"""Sends the outbox's reports over one connection, and removes those that the hub has
acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from hostler_agent.errors import DeadlineExceeded, LinkLost
from hostler_agent.wire.errors import RemoteError, WireError

if TYPE_CHECKING:
    from hostler_agent.hub.connection import Connection
    from hostler_agent.hub.lease import LeaseTimer
    from hostler_agent.hub.outbox import Entry, Outbox

WINDOW = 32
"""Reports in flight; the other half of the slots is for transfers."""

log = logging.getLogger(__name__)


class ReportSender:
    """Starts sending at once, with the first unacknowledged report. Must be made inside the event
    loop.
    """

    def __init__(self, outbox: Outbox, connection: Connection, lease: LeaseTimer) -> None:
        self._outbox = outbox
        self._connection = connection
        self._lease = lease
        self._window = asyncio.Semaphore(WINDOW)
        outbox.rewind()
        self._task = asyncio.create_task(self._run(), name="report sender")

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while True:
                await self._window.acquire()
                await self._send(await self._outbox.next())
        except LinkLost:
            return  # the next connection has a sender of its own
        except Exception:
            # A task's boundary: without a sender the agent would be mute for ever.
            log.exception("sending reports has failed")
            self._connection.abort()
            raise

    async def _send(self, entry: Entry) -> None:
        # A machine that was suspended must not speak of a lease that is over (A8); when it is, the
        # entry has gone from the outbox.
        self._lease.check()
        if entry not in self._outbox:
            self._window.release()
            return
        answer = await self._connection.post(entry.report)
        answer.add_done_callback(lambda answered: self._answered(entry, answered))

    def _answered(self, entry: Entry, answer: asyncio.Future[Any]) -> None:
        self._window.release()
        if answer.cancelled():
            return
        error = answer.exception()
        if isinstance(error, DeadlineExceeded):
            log.error("the hub answers no more: %s", error)
            self._connection.abort()
        elif error is None or isinstance(error, RemoteError):
            if error is not None:
                # It has judged, and would not judge otherwise the next time.
                log.error("the hub refused %s: %s", entry.report.op, error)
            self._outbox.acknowledge(entry)
        elif not isinstance(error, LinkLost):
            assert isinstance(error, WireError)
            log.error("%s was not sent: %s", entry.report.op, error)
