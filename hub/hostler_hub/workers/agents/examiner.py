"""Compares an attached agent's machine with what its worker's definition expects.

The lifecycle core orders the check, before the worker's first lease, and decides what follows from
it. The agent is asked for its facts each time, so that a repair is seen. It is asked for versions
of tools only if it announces the command for that; if it does not, as Buildbot's own worker, each
expected tool is a difference.

If the agent disconnects during the check, the check reports nothing: the end of the connection is
the next event. If the agent answers too late, or with nonsense, that is a difference (A6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from hostler_agent.wire import messages
from hostler_agent.wire.errors import ProtocolError, WireError
from hostler_agent.wire.extension import STOPPING, TOOL_VERSIONS
from hostler_hub.errors import NotFound
from hostler_hub.lifecycle import commands, events
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.specs.expectations import (
    Difference,
    Expectations,
    Findings,
    MachineCheck,
    Tool,
    differences,
)
from hostler_hub.store.errors import StoreUnavailable
from hostler_hub.workers.agents.facts import facts_of
from hostler_hub.workers.agents.session import AgentSession
from hostler_hub.workers.agents.sessions import Sessions
from hostler_hub.workers.errors import ConnectionLost
from hostler_hub.workers.registry import Registry

_log = structlog.get_logger(__name__)

# Deadlines in seconds: for one tool to print its version, for all tools, and for the whole check.
TOOL_S = 10.0
TOOLS_S = 45.0
EXAM_S = 60.0

_TEXT_SIZE = 500


class Examiner:
    """Compares machines of attached agents with what their definitions expect."""

    def __init__(self, clock: Clock, registry: Registry, sessions: Sessions) -> None:
        self._clock = clock
        self._registry = registry
        self._sessions = sessions

    async def examine(self, worker: str, order: commands.Examine) -> events.Examined | None:
        """Carry out the lifecycle core's order to check a machine; return the answering event.

        Returns None if the agent is gone or is stopping: the end of its connection is the next
        event.
        """
        session = self._sessions.by_connection(order.connection)
        check = None if session is None else await self._check(session, order.expects)
        if check is None:
            return None
        if (entry := self._registry.find(worker)) is not None:
            entry.exam = check
        return events.Examined(at=check.at, exam=order.exam, met=check.met, cause=check.summary)

    async def _check(self, session: AgentSession, expects: Expectations) -> MachineCheck | None:
        findings = None
        try:
            async with asyncio.timeout(EXAM_S):
                findings = await self._find(session, expects)
            differs = differences(expects, findings)
        except (ConnectionLost, NotFound):
            return None
        except TimeoutError:
            differs = (Difference("agent", f"an answer within {EXAM_S:g} s", "none"),)
        except WireError as error:
            if str(error) == STOPPING:
                return None
            _log.warning(
                "agent's answer is none", worker=session.admitted.worker, reason=str(error)
            )
            differs = (Difference("agent", "an answer", _short(str(error))),)
        return MachineCheck(self._clock.now(), expects, differs, findings)

    async def _find(self, session: AgentSession, expects: Expectations) -> Findings:
        asked_at = self._clock.now()
        await session.refresh_info()
        answered_at = self._clock.now()
        facts = await self._note(session)
        told_at = None if session.report is None else session.report.clock_s
        tools = await self._tools(session, list(expects.tools)) if expects.tools else None
        return Findings(
            facts=facts,
            agent=_name_of(session),
            clock_skew_s=None if told_at is None else skew_s(told_at, asked_at, answered_at),
            tools=tools,
        )

    async def _note(self, session: AgentSession) -> Mapping[str, Any]:
        """The facts that the agent has reported, stored if they changed.

        An outage of the store is not counted as a fault of the machine (V12).
        """
        try:
            return await self._sessions.store_facts(session)
        except StoreUnavailable as error:  # the agent reports them again when it next attaches
            _log.warning("facts not noted", worker=session.admitted.worker, reason=str(error))
            return facts_of(session.info, session.report)

    async def _tools(
        self, session: AgentSession, names: Sequence[str]
    ) -> Mapping[str, Tool] | None:
        """The tools by name, as the agent reports them; None if it does not announce the command.

        Raises ConnectionLost, TimeoutError, and WireError if the command fails.
        """
        announced = session.info.get("worker_commands")
        if not isinstance(announced, dict) or TOOL_VERSIONS not in announced:
            return None
        asking = _Asking(session.instance)
        command_id = f"exam-{new_ulid(int(self._clock.now() * 1000)).lower()}"
        args = {"tools": list(names), "timeout": TOOL_S, "maxTime": TOOLS_S}
        self._sessions.listen(command_id, asking)
        try:
            await session.request(messages.StartCommand(command_id, TOOL_VERSIONS, args))
            return await _unless_gone(session, asking.answer)
        finally:
            self._sessions.unlisten(command_id)


class _Asking:
    """Receives the reports of one TOOL_VERSIONS command (a CommandSink).

    ``answer`` is set when the command completes: to the tools by name, or to ProtocolError.
    """

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.answer: asyncio.Future[dict[str, Tool]] = asyncio.get_running_loop().create_future()
        self._told: Any = None

    async def update(self, pairs: Sequence[Sequence[Any]]) -> None:
        for key, value in pairs:
            if key == TOOL_VERSIONS:
                self._told = value

    async def complete(self, error: str | None) -> None:
        if self.answer.done():
            return
        if error is not None:
            self.answer.set_exception(ProtocolError(error))
            return
        try:
            self.answer.set_result(tools_of(self._told))
        except ProtocolError as nonsense:
            self.answer.set_exception(nonsense)

    async def carry(self, message: messages.Message) -> Any:
        raise ProtocolError(f"{message.op}: there is no file to transfer")


async def _unless_gone(
    session: AgentSession, answer: asyncio.Future[dict[str, Tool]]
) -> dict[str, Tool]:
    """Wait for the answer. Raises ConnectionLost as soon as the session is closed."""
    gone = asyncio.create_task(session.closed.wait(), name="agent gone")
    gone.add_done_callback(lambda _: answer.cancel())
    try:
        return await answer
    except asyncio.CancelledError:
        if not gone.done():
            raise  # this task itself is cancelled
        raise ConnectionLost("the agent's connection is gone") from None
    finally:
        gone.cancel()


def tools_of(told: Any) -> dict[str, Tool]:
    """Parse an agent's report of tools: {name: {path, version, problem}}. Raises ProtocolError."""
    if not isinstance(told, dict):
        raise ProtocolError(f"{TOOL_VERSIONS} was not answered with a map")
    return {str(name): _tool(name, each) for name, each in told.items()}


def _tool(name: object, told: Any) -> Tool:
    keys = ("path", "version", "problem")
    if not isinstance(told, dict) or not all(
        told.get(key) is None or isinstance(told[key], str) for key in keys
    ):
        raise ProtocolError(f"{TOOL_VERSIONS}: what is told of {_short(str(name))} makes no sense")
    return Tool(*(None if told.get(key) is None else _short(told[key]) for key in keys))


def skew_s(told_at: float, asked_at: float, answered_at: float) -> float:
    """How many seconds the agent's clock is off at least; above 0 it is ahead of the hub's.

    The agent read ``told_at`` between the hub's readings ``asked_at`` and ``answered_at``. The
    result is 0 if it lies between them, so a slow answer never makes a right clock look wrong.
    """
    if told_at > answered_at:
        return told_at - answered_at
    return min(0.0, told_at - asked_at)


def _name_of(session: AgentSession) -> str:
    """The agent's name and version, for people.

    It says whether the agent is ours: a foreign agent reports whatever version it likes.
    """
    version = _short(str(session.info.get("version", "of no known version")))
    return f"{'the agent' if session.report is not None else 'a foreign agent'} ({version})"


def _short(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text[:_TEXT_SIZE])
