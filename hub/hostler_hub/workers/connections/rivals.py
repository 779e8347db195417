"""Tells an agent from a process that has stolen what the agent attaches with.

A build that runs as its agent's user may have its token and its session secret, but not the id of
its process, which is in the agent's memory alone. So while the connection of one process is open,
another process is refused, also when the first one is silent, as a stopped one is (A5, V4). When it
has closed, the core decides whether another process is the agent's restart: it may be, where it is
proven to be no build, or where the worker is permanent (E9).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from hostler_agent.wire import messages
from hostler_agent.wire.errors import RemoteError
from hostler_agent.wire.extension import GO_AWAY_CLOSE_CODE
from hostler_hub.errors import NotFound
from hostler_hub.lifecycle import events
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.runtime.settings import Settings
from hostler_hub.specs.isolation import Isolation, isolation_of
from hostler_hub.workers.agents.session import Admitted, AgentSession
from hostler_hub.workers.agents.sessions import TURN_AWAY_CLOSE_CODE, Sessions
from hostler_hub.workers.controller import Controller
from hostler_hub.workers.errors import ConnectionLost
from hostler_hub.workers.hold import Hold
from hostler_hub.workers.registry import Entry, Registry

# The incident of a second agent.
DUPLICATE = "duplicate"


class Rivals:
    """Judges agents that are about to attach. An attached one has ``rival_deadline_s`` to show that
    its connection still works, or has closed; ``report_detached`` then reports the latter.
    """

    def __init__(
        self,
        registry: Registry,
        sessions: Sessions,
        controller: Controller,
        clock: Clock,
        settings: Settings,
        hold: Hold,
        report_detached: Callable[[AgentSession], Awaitable[None]],
    ) -> None:
        self._registry = registry
        self._sessions = sessions
        self._controller = controller
        self._clock = clock
        self._deadline_s = settings.rival_deadline_s
        self._hold = hold
        self._report_detached = report_detached

    async def is_uncontested(self, session: AgentSession) -> bool:
        """Whether no other process is connected as the same agent; else the session is closed.

        The other one is first given the time to answer, or to be noticed as closed: that of an
        agent that was killed closes at about the time when its successor comes.
        """
        entry = self._registry.find(session.admitted.worker)
        old = self._sessions.by_connection((entry and entry.life.connection) or "")
        if entry is None or old is None or _is_same_process(old, session):
            return True
        lives = await self._lives(old)
        if old.closed.is_set():
            await self._report_detached(old)  # before the core hears of its successor
            if entry.life.instance is None and entry.life.policy.permanent:
                # It was admitted to the instance that has just ended, and begins one of its own.
                session.admitted = Admitted(entry.life.name, self._new_instance(), None)
            return True
        await self._refuse(entry, session, old, lives=lives)
        return False

    def _new_instance(self) -> str:
        return new_ulid(int(self._clock.now() * 1000))

    async def _refuse(
        self, entry: Entry, session: AgentSession, old: AgentSession, *, lives: bool
    ) -> None:
        """Refuse a second process. A latent worker's instance ends, a permanent worker goes on.

        A stock worker reports no process, so that its reconnect looks like a rival's while its old
        connection is half-open: nobody is alarmed of that.
        """
        state = "lives" if lives else "is silent, though its connection is open"
        cause = f"a second agent, at {session.client}, came while the one at {old.client} {state}"
        at, permanent = self._clock.now(), entry.life.policy.permanent
        if not permanent:
            theft = events.Compromised(at=at, instance=session.instance, cause=cause)
            await self._controller.handle_until_stored(entry.life.name, theft)
        elif DUPLICATE not in entry.incidents:  # else it is known: one row is enough
            alarm = lives or old.process is not None
            event = events.Refused(at=at, cause=cause, alarm=alarm)
            with contextlib.suppress(NotFound):
                await self._controller.handle(entry.life.name, event)
        # A permanent worker's other machine may be the right one tomorrow: it may try again.
        may_return = permanent or self._hold.reason is not None
        code = TURN_AWAY_CLOSE_CODE if may_return else GO_AWAY_CLOSE_CODE
        await session.close(code, cause[:100])

    def is_proven(self, session: AgentSession) -> bool:
        """Whether the agent cannot be a build that has stolen what its agent attaches with.

        Builds on the instance are other users, as the agent that attached before has said: what a
        thief says does not count. Or its former process has handed on its secret id.
        """
        entry = self._registry.find(session.admitted.worker)
        if entry is None:
            return False
        handed_on = session.former is not None and session.former == entry.life.process
        return handed_on or isolation_of(entry.facts) is Isolation.USER

    def is_believed(self, session: AgentSession, *, proven: bool) -> bool:
        """Whether the agent's facts may be stored before the core has accepted it.

        Not those of another process than the one before, where builds could be that process.
        """
        entry = self._registry.find(session.admitted.worker)
        if entry is None or proven or entry.life.policy.permanent:
            return True
        return entry.life.process in {None, session.process}

    async def _lives(self, session: AgentSession) -> bool:
        """Whether the attached agent answers in time.

        A deadline during which the hub itself stood still proves nothing: the agent is asked again
        (A10).
        """
        while True:
            heard, stalled_s = session.heard, self._controller.stalls.total_s()
            if await _answers(session, self._deadline_s) or session.heard > heard:
                return True
            if session.closed.is_set() or self._controller.stalls.total_s() == stalled_s:
                return False


def _is_same_process(old: AgentSession, new: AgentSession) -> bool:
    known = old.process is not None
    return known and (old.boot_id, old.process) == (new.boot_id, new.process)


async def _answers(session: AgentSession, deadline_s: float) -> bool:
    """Whether the agent answers a keepalive within the deadline, be it with an error."""
    try:
        async with asyncio.timeout(deadline_s):
            await session.request(messages.Keepalive())
    except RemoteError:
        return True
    except (ConnectionLost, TimeoutError):
        return False
    return True
