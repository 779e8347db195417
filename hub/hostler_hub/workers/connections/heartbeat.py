"""Asks an agent at an interval whether it is alive; disconnects it after three silent intervals.

The question is the protocol's own `keepalive`, which a stock worker answers too; any other frame
from the agent counts as an answer. An interval during which the hub itself stood still proves
nothing and is not counted (V12, A10).
"""

from __future__ import annotations

import asyncio

import structlog

from hostler_agent.wire import messages
from hostler_agent.wire.errors import RemoteError
from hostler_hub.lifecycle.jitter import phase_of
from hostler_hub.runtime.stalls import Stalls
from hostler_hub.workers.agents.session import AgentSession
from hostler_hub.workers.errors import ConnectionLost

_log = structlog.get_logger(__name__)

SILENCES = 3


class Heartbeat:
    """The heartbeat of one attached agent, which is asked every ``interval_s`` seconds."""

    def __init__(self, session: AgentSession, interval_s: float, stalls: Stalls) -> None:
        self._session = session
        self._interval_s = interval_s
        self._stalls = stalls

    async def run(self) -> None:
        """Ask until the connection is closed, by either side."""
        name = f"heartbeat {self._session.admitted.worker}"
        beating = asyncio.create_task(self._beat(), name=name)
        try:
            await self._session.closed.wait()
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def _beat(self) -> None:
        silences = 0
        # Spreads the questions to agents that attached together.
        beat_s = self._interval_s * (1 + phase_of(self._session.admitted.worker)) / 2
        while silences < SILENCES:
            heard, stalled_s = self._session.heard, self._stalls.total_s()
            ends_at = asyncio.get_running_loop().time() + beat_s
            if await self._answers() or self._session.heard > heard:
                silences = 0
            elif self._stalls.total_s() == stalled_s:
                silences += 1
            await asyncio.sleep(max(0.0, ends_at - asyncio.get_running_loop().time()))
            beat_s = self._interval_s
        reason = f"silent for {SILENCES} pings, {self._interval_s:g} s apart"
        _log.warning("agent is silent", worker=self._session.admitted.worker, reason=reason)
        await self._session.close(1011, reason)

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(self._interval_s):
                await self._session.request(messages.Keepalive())
        except (TimeoutError, ConnectionLost):
            return False
        except RemoteError:
            return True  # it refuses the request, so it is alive
        return True
