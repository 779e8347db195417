"""Sends the outbox's reports over one connection, and removes those that the hub has
acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Optional

from hostler_agent.errors import DeadlineExceeded, LinkLost
from hostler_agent.wire.errors import RemoteError, WireError
from hostler_agent.wire.extension import AGAIN

if TYPE_CHECKING:
    from hostler_agent.hub.connection import Connection
    from hostler_agent.hub.lease import LeaseTimer
    from hostler_agent.hub.outbox import Entry, Outbox

WINDOW = 32
"""Reports in flight; the other half of the slots is for transfers."""
AGAIN_S = 1.0
AGAIN_LONGEST_S = 10.0
"""The pause before reports are sent again that the hub could not store; it doubles to the longest,
so that a fleet does not keep a hub busy with what it must refuse."""

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
        self._resending: Optional[asyncio.Task[None]] = None
        self._pause_s = AGAIN_S
        outbox.rewind()
        self._task = asyncio.create_task(self._run(), name="report sender")

    async def aclose(self) -> None:
        tasks = [each for each in (self._task, self._resending) if each is not None]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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

    def _resend_soon(self) -> None:
        """Send all reports again that the hub has not acknowledged, in their order, after a pause:
        later ones must not be stored before those that it could not store.
        """
        if self._resending is None or self._resending.done():
            if self._pause_s == AGAIN_S:
                log.warning("the hub cannot store reports now; they are kept and sent again")
            self._resending = asyncio.create_task(self._resend(), name="report resender")

    async def _resend(self) -> None:
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, AGAIN_LONGEST_S)
        self._outbox.rewind()

    def _answered(self, entry: Entry, answer: asyncio.Future[Any]) -> None:
        self._window.release()
        if answer.cancelled():
            return
        error = answer.exception()
        if isinstance(error, DeadlineExceeded):
            log.error("the hub answers no more: %s", error)
            self._connection.abort()
        elif isinstance(error, RemoteError) and str(error) == AGAIN:
            self._resend_soon()
        elif error is None or isinstance(error, RemoteError):
            self._pause_s = AGAIN_S
            if error is not None:
                # It has judged, and would not judge otherwise the next time.
                log.error("the hub refused %s: %s", entry.report.op, error)
            self._outbox.acknowledge(entry)
        elif not isinstance(error, LinkLost):
            assert isinstance(error, WireError)
            log.error("%s was not sent: %s", entry.report.op, error)
