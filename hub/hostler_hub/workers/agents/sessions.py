"""The live sessions with agents, by connection and by instance, and the sink of each command.

Sessions know nothing of the controller: ``server`` adds and removes them as agents connect and
disconnect, runners of builds and the examiner find them here, and the controller's commands end
them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import structlog

from hostler_agent.wire import messages
from hostler_agent.wire.errors import RemoteError
from hostler_agent.wire.extension import GO_AWAY_CLOSE_CODE
from hostler_hub.runtime.tasks import Tasks
from hostler_hub.runtime.waiters import Waiters
from hostler_hub.store import workers
from hostler_hub.store.engine import Store
from hostler_hub.workers.agents.facts import facts_of
from hostler_hub.workers.agents.session import AgentSession, CommandSink
from hostler_hub.workers.errors import ConnectionLost
from hostler_hub.workers.registry import Registry

_log = structlog.get_logger(__name__)

TURN_AWAY_CLOSE_CODE = 1008
"""The close code for an agent that another one is preferred to: it may come back."""


class Sessions:
    """All live sessions. ``sinks`` are the receivers of agents' reports, by command id."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self.sinks: dict[str, CommandSink] = {}
        self._by_connection: dict[str, AgentSession] = {}
        self._by_instance: dict[str, AgentSession] = {}
        self._attached: Waiters[str] = Waiters()  # by instance
        self._tasks = Tasks()

    # --- for those who run commands -------------------------------------------------------------

    def listen(self, command_id: str, sink: CommandSink) -> None:
        """Route the reports of that command, on any connection of its instance, to ``sink``."""
        self.sinks[command_id] = sink

    def unlisten(self, command_id: str) -> None:
        self.sinks.pop(command_id, None)

    def commands_of(self, instance: str) -> tuple[str, ...]:
        """The ids of the commands on that instance that have a sink."""
        return tuple(name for name, sink in self.sinks.items() if sink.instance == instance)

    async def session(self, instance: str) -> AgentSession:
        """Wait, without a deadline, until the instance's agent is attached; return its session."""
        while True:
            session = self._by_instance.get(instance)
            if session is not None and not session.closed.is_set():
                return session
            with self._attached.waiting(instance) as attached:
                await attached.wait()

    # --- for the server ---------------------------------------------------------------------------

    def add(self, session: AgentSession) -> None:
        """Add the session of an open connection whose agent is not attached yet."""
        self._by_connection[session.id] = session

    def attach(self, session: AgentSession) -> None:
        """Make the session its instance's: commands may be sent over it.

        Called once the controller has accepted the agent as attached.
        """
        self._by_instance[session.instance] = session
        self._attached.wake(session.instance)

    def discard(self, session: AgentSession) -> None:
        """Remove the session of a closed connection. A newer one of the same instance stays."""
        self._by_connection.pop(session.id, None)
        if self._by_instance.get(session.instance) is session:
            del self._by_instance[session.instance]

    def by_connection(self, connection: str) -> AgentSession | None:
        """The session of that connection, or None."""
        return self._by_connection.get(connection)

    async def store_facts(self, session: AgentSession) -> Mapping[str, Any]:
        """Store the facts that the agent has reported, if they changed; return them.

        Raises NotFound, StoreUnavailable.
        """
        facts = facts_of(session.info, session.report)
        entry = self._registry.get(session.admitted.worker)
        if facts != entry.facts:
            await self._store.write(workers.set_facts, entry.life.name, facts)
            entry.facts = facts
        return facts

    # --- for the controller and the hub's end -----------------------------------------------------

    def send_away(self, connection: str, reason: str) -> None:
        """Order an agent to end and not to reconnect, in the background (V18).

        Does nothing if the connection is gone.
        """
        session = self._by_connection.get(connection)
        if session is not None:
            self._tasks.spawn(_send_away(session, reason), f"send away {session.admitted.worker}")

    def turn_away(self, connection: str, reason: str) -> None:
        """Close a connection, in the background: its agent may come back (V18).

        Does nothing if the connection is gone.
        """
        session = self._by_connection.get(connection)
        if session is not None:
            closing = session.close(TURN_AWAY_CLOSE_CODE, reason[:100])
            self._tasks.spawn(closing, f"turn away {session.admitted.worker}")

    async def aclose(self) -> None:
        """Close every connection because the hub stops; agents reconnect to the next hub."""
        sessions = list(self._by_connection.values())
        # All at once, and each within CLOSE_S: a peer that is stopped delays no other (V18).
        await asyncio.gather(*(session.close(1012, "the hub restarts") for session in sessions))
        await self._tasks.aclose()


async def _send_away(session: AgentSession, reason: str) -> None:
    _log.info("agent sent away", worker=session.admitted.worker, reason=reason)
    with contextlib.suppress(ConnectionLost, RemoteError, TimeoutError):
        async with asyncio.timeout(2):  # the close code says it too
            await session.request(messages.Shutdown())
    await session.close(GO_AWAY_CLOSE_CODE, reason[:100])
