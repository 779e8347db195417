"""Runs one leased build on the agent that holds it, step by step.

Theory of operation. A step is one ``shell`` command; its id, ``BUILD.ATTEMPT.INDEX``, is the same
however often it is sent, and an agent starts an id once (K7): so after a lost connection, or a
restart of the hub, the command is simply sent again, and the agent goes on reporting. What the
agent reports is acknowledged when it is durable. The last step's result, the build's result and
the end of the lease are one transaction (V8, V10).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Connection

from hostler_agent.wire import messages
from hostler_agent.wire.errors import RemoteError
from hostler_agent.wire.extension import LOST, STOPPING, CommandTerms
from hostler_hub import course
from hostler_hub.agents import Agents, AgentSession, ConnectionLost
from hostler_hub.clock import Clock
from hostler_hub.command_run import CommandRun
from hostler_hub.controller import Controller
from hostler_hub.course import StepOutcome
from hostler_hub.errors import NotFound
from hostler_hub.lifecycle import events
from hostler_hub.logs import Logs, StepKey
from hostler_hub.specs import BuildSpec, StepSpec
from hostler_hub.store import builds
from hostler_hub.store.engine import Store

_log = structlog.get_logger(__name__)

# How long an interrupted command may take beyond its own SIGTERM grace before we give up on it.
INTERRUPT_MARGIN_S = 30.0
CLEAN_DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to one slot of a worker for one attempt of a build."""

    id: str
    build: str
    worker: str
    instance: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Services:
    """What every runner uses."""

    store: Store
    clock: Clock
    controller: Controller
    agents: Agents
    logs: Logs
    on_finished: Callable[[str], None]
    on_lost: Callable[[Lease, str], None]


class Runner:
    """One attempt of one build, from its lease to its result."""

    def __init__(
        self, services: Services, lease: Lease, spec: BuildSpec, rows: Sequence[Any]
    ) -> None:
        self._services = services
        self.lease = lease
        self.spec = spec
        self._states = [row["state"] for row in rows]
        self._sizes = [row["log_size_bytes"] for row in rows]
        self._outcomes = [
            StepOutcome(row["state"], row["rc"], row["failure_reason"]) for row in rows
        ]
        self._interrupt: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._interrupted_as = course.CANCELLED

    def cancel(self, reason: str) -> None:
        """Somebody wants the build to end; asking twice changes nothing (A13)."""
        if not self._interrupt.done():
            self._interrupt.set_result(reason)

    async def run(self) -> None:
        """Run what is left of the build, store its result, give the slot back."""
        timer = None
        if self.spec.timeout_s is not None:
            at = self._services.clock.now() + self.spec.timeout_s
            timer = self._services.clock.call_at(at, self._time_out)
        try:
            await self._run_steps()
        finally:
            if timer is not None:
                timer.cancel()

    def _time_out(self) -> None:
        if not self._interrupt.done():
            self._interrupted_as = course.FAILURE
            self.cancel(f"the build took longer than {self.spec.timeout_s:g} s")

    # --- steps ----------------------------------------------------------------------------------

    async def _run_steps(self) -> None:
        while True:
            index = None
            if not self._interrupt.done():
                index = course.next_step(self.spec.steps, self._states)
            if index is None:
                await self._finish(None, None)
                return
            command = await self._run_step(index)
            outcome = command.outcome.result()
            self._states[index], self._outcomes[index] = outcome.state, outcome
            over = course.next_step(self.spec.steps, self._states) is None
            if over or self._interrupt.done():
                await self._finish(index, command)
                return
            await self._services.store.write(
                builds.update_step, *self._key(index), self._ended(index, command)
            )
            self._acknowledge(index, command)

    async def _run_step(self, index: int) -> CommandRun:
        lease, services = self.lease, self._services
        key = StepKey(lease.build, lease.attempt, index)
        command = CommandRun(lease.instance, services.logs.writer(key, self._sizes[index]))
        command_id = f"{lease.build}.{lease.attempt}.{index}"
        services.agents.listen(command_id, command)
        if self._states[index] == course.PENDING:
            self._states[index] = course.RUNNING
            started = {"state": course.RUNNING, "started_at": services.clock.now()}
            services.store.write(builds.update_step, *self._key(index), started)
        try:
            await self._drive(index, command_id, command)
        except asyncio.CancelledError:
            services.agents.unlisten(command_id)
            raise
        return command

    async def _drive(self, index: int, command_id: str, command: CommandRun) -> None:
        """Send the command over every session there is until it is over."""
        while not command.outcome.done():
            session = await self._services.agents.session(self.lease.instance)
            message = messages.StartCommand(command_id, "shell", self._args(index, session))
            try:
                await session.request(message)
                await self._watch(session, command_id, command)
            except (ConnectionLost, TimeoutError):
                await session.close(1011, "no answer in time")
            except RemoteError as error:
                if str(error) == LOST:
                    self._services.on_lost(self.lease, str(error))
                    await asyncio.Event().wait()  # until we are cancelled for it
                if str(error) == STOPPING:  # no fault of the build: it is lost with its agent
                    await session.closed.wait()
                    continue
                refused = StepOutcome(course.EXCEPTION, None, None, f"the agent refused: {error}")
                if not command.outcome.done():
                    command.outcome.set_result(refused)

    async def _watch(self, session: AgentSession, command_id: str, command: CommandRun) -> None:
        """Wait for the end; when somebody wants it sooner, interrupt, and not for ever."""
        closed = asyncio.ensure_future(session.closed.wait())
        try:
            waits: set[asyncio.Future[Any]] = {closed, command.outcome, self._interrupt}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if self._interrupt.done() and not command.outcome.done():
                why = self._interrupt.result()
                if not session.closed.is_set():
                    await session.request(messages.InterruptCommand(command_id, why))
                await self._await_interrupted(command, why, closed)
        finally:
            closed.cancel()

    async def _await_interrupted(
        self, command: CommandRun, why: str, closed: asyncio.Future[Any]
    ) -> None:
        grace = max((step.sigterm_time_s or 0) for step in self.spec.steps) + INTERRUPT_MARGIN_S
        await asyncio.wait(
            {closed, command.outcome}, timeout=grace, return_when=asyncio.FIRST_COMPLETED
        )
        if command.outcome.done():
            ended = command.outcome.result()
            clean = ended.clean
            command.outcome = asyncio.get_running_loop().create_future()
            command.outcome.set_result(
                StepOutcome(self._interrupted_as, ended.rc, "interrupted", why, clean)
            )
        elif not closed.done():
            text = f"{why}; the agent did not end it in time"
            command.outcome.set_result(
                StepOutcome(self._interrupted_as, None, "interrupted", text, clean=False)
            )

    # --- the end --------------------------------------------------------------------------------

    async def _finish(self, index: int | None, command: CommandRun | None) -> None:
        """The last step, the rest as skipped, and the build's result: one transaction."""
        state, text = self._result()
        at = self._services.clock.now()
        lease = self.lease

        def write(c: Connection) -> bool:
            if index is not None and command is not None:
                builds.update_step(c, *self._key(index), self._ended(index, command))
            for skipped, step_state in enumerate(self._states):
                if step_state == course.PENDING:
                    builds.update_step(c, *self._key(skipped), {"state": course.SKIPPED})
            return builds.finish(c, lease.build, state, text, at, attempt=lease.attempt)

        first = await self._services.store.write(write)
        if index is not None and command is not None:
            self._acknowledge(index, command)
        for number in range(len(self._states)):
            self._services.logs.changed(StepKey(lease.build, lease.attempt, number))
        self._services.on_finished(lease.build)
        _log.info("build finished", build=lease.build, state=state, worker=lease.worker)
        await self._release(finished=first)

    def _result(self) -> tuple[str, str | None]:
        if self._interrupt.done():
            return self._interrupted_as, self._interrupt.result()
        return course.result_of(self.spec.steps, self._outcomes)

    async def _release(self, *, finished: bool) -> None:
        """V10: the slot goes back only clean; what cannot be cleaned ends the instance."""
        trouble = await self._clean_workspace()
        survivors = any(not outcome.clean for outcome in self._outcomes)
        if survivors:
            trouble = "processes of the build survived its end"
        lease, at = self.lease, self._services.clock.now()
        event = events.Released(
            at=at,
            lease=lease.id,
            finished=finished,
            clean=trouble is None,
            cause=trouble or "build finished",
        )

        def end(c: Connection) -> None:
            builds.end_lease(c, lease.id, at, event.cause)

        try:
            await self._services.controller.handle(lease.worker, event, end)
        except NotFound:  # removed meanwhile; its leases were lost with it
            await self._services.store.write(end)

    async def _clean_workspace(self) -> str | None:
        """Remove the build's directory; why it could not be done, or None."""
        command = CommandRun(self.lease.instance, log=None)
        command.stored.set()  # nothing of it is kept
        command_id = f"{self.lease.build}.{self.lease.attempt}.clean"
        self._services.agents.listen(command_id, command)
        try:
            async with asyncio.timeout(CLEAN_DEADLINE_S):
                session = await self._services.agents.session(self.lease.instance)
                args = {"paths": [self._workspace(session)], "logEnviron": False, "timeout": 100}
                await session.request(messages.StartCommand(command_id, "rmdir", args))
                outcome = await command.outcome
        except (ConnectionLost, RemoteError, TimeoutError) as error:
            return f"its workspace could not be removed: {str(error) or 'no answer in time'}"
        finally:
            self._services.agents.unlisten(command_id)
        if outcome.state != course.SUCCESS:
            return f"its workspace could not be removed (rc {outcome.rc})"
        return None

    # --- small parts ------------------------------------------------------------------------------

    def _key(self, index: int) -> tuple[str, int, int]:
        return self.lease.build, self.lease.attempt, index

    def _ended(self, index: int, command: CommandRun) -> dict[str, Any]:
        outcome = self._outcomes[index]
        receipt = None if command.receipt is None else command.receipt.pair()[1]
        return {
            "state": outcome.state,
            "rc": outcome.rc,
            "failure_reason": outcome.failure_reason,
            "finished_at": self._services.clock.now(),
            "receipt": receipt,
        }

    def _acknowledge(self, index: int, command: CommandRun) -> None:
        command.stored.set()
        command_id = f"{self.lease.build}.{self.lease.attempt}.{index}"
        self._services.agents.unlisten(command_id)
        self._services.logs.changed(StepKey(self.lease.build, self.lease.attempt, index))

    def _workspace(self, session: AgentSession) -> str:
        return f"{session.basedir}/builds/{self.lease.build}.{self.lease.attempt}"

    def _args(self, index: int, session: AgentSession) -> dict[str, Any]:
        """The arguments of the ``shell`` command, in Buildbot's names."""
        step = self.spec.steps[index]
        args: dict[str, Any] = {
            "command": step.command if isinstance(step.command, str) else list(step.command),
            "workdir": _join(self._workspace(session), step),
            "env": {**self.spec.env, **step.env},
            "timeout": step.timeout_s,
            "maxTime": step.max_time_s,
            "max_lines": step.max_lines,
            "sigtermTime": step.sigterm_time_s,
            "logEnviron": False,
            "want_stdout": True,
            "want_stderr": True,
        }
        if session.report is not None:
            args["hostler"] = CommandTerms(self.lease.id, self.lease.attempt).body()
        return args


def _join(workspace: str, step: StepSpec) -> str:
    """Absolute stays; agents on every system take a slash."""
    workdir = step.workdir
    if workdir is None:
        return workspace
    absolute = workdir.startswith(("/", "\\")) or workdir[1:2] == ":"
    return workdir if absolute else f"{workspace}/{workdir}"
