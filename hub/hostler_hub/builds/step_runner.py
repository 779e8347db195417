"""Runs one step on the agent that holds the build's lease, command by command.

Theory of operation. A step kind that resumes is a single command with the fixed id
``BUILD.ATTEMPT.INDEX``. An agent starts an id only once (K7): so after a lost connection, or a
restart of the hub, the same command is sent again, and the agent goes on reporting. The other
kinds, above all transfers, have state in this process's memory: when a connection is lost, their
command begins again under a new id, which nobody can guess (U1).
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from hostler_agent.wire import extension, messages
from hostler_agent.wire.errors import RemoteError
from hostler_agent.wire.extension import (
    ENDING,
    LOST,
    STOPPING,
    AgentReport,
    CommandSecret,
    CommandTerms,
)
from hostler_hub.builds.artifacts.exchange import Exchange
from hostler_hub.builds.command import CommandRun, survivors
from hostler_hub.builds.errors import CommandGone, SecretForbidden, StepFailed, TransferRefused
from hostler_hub.builds.logs import Logs, StepKey
from hostler_hub.builds.secrets import BuildSecrets, Use
from hostler_hub.builds.states import Interruption, StepOutcome
from hostler_hub.builds.step_kinds import KINDS, Call, Wanted, Workspace
from hostler_hub.builds.timeouts import StepTimeouts
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.errors import SecretRefused
from hostler_hub.runtime.waiters import Waiters
from hostler_hub.scheduling.lease import Lease
from hostler_hub.specs.build import BuildSpec
from hostler_hub.specs.states import StepState
from hostler_hub.specs.step import Limits, effective
from hostler_hub.store import builds
from hostler_hub.store import logs as log_rows
from hostler_hub.store.engine import Store
from hostler_hub.workers.agents.session import AgentSession
from hostler_hub.workers.agents.sessions import Sessions
from hostler_hub.workers.controller import Controller
from hostler_hub.workers.errors import ConnectionLost

# How long an interrupted command may take beyond its own SIGTERM grace before we give up on it.
INTERRUPT_MARGIN_S = 30.0
# How long to wait before a command is sent again that the agent is still ending.
_ENDING_S = 1.0
_SPAWNER_KILLED = "the process that ran the command on its worker was killed"
# The last line of a log whose rest was lost.
_MISSING = b"\n[the rest was lost in an outage of the hub's database]\n"
# The largest output from which properties are read.
OUTPUT_SIZE_BYTES = 1024 * 1024


class StepRun:
    """Runs one step of one attempt. ``command`` is the latest command of the step; the agent's
    report of its end stays unanswered until acknowledge().
    """

    def __init__(
        self,
        services: Services,
        lease: Lease,
        spec: BuildSpec,
        key: StepKey,
        log_size_bytes: int,
        interrupt: asyncio.Future[Interruption],
    ) -> None:
        self._services = services
        self._lease = lease
        self._spec = spec
        self._step = spec.steps[key.index]
        self._kind = KINDS[self._step.kind]
        self._limits = effective(spec.limits, self._step.limits) if self._step.argv else None
        self._key = key
        self._is_forgotten = False  # the agent had the command, but has to start it anew
        self._log = services.logs.writer(key, log_size_bytes)
        self._stop = interrupt
        self._command_id = f"{key.build}.{key.attempt}.{key.index}"
        self.command = CommandRun(lease.instance, log=None)  # none yet

    async def run(self) -> StepOutcome:
        """Run the step to its end. The caller stores the outcome, then calls acknowledge(); also
        after CommandGone.

        Raises CommandGone if the agent has lost the command.
        """
        patience = None
        if self._kind.is_timed:
            patience = StepTimeouts(self._services.clock, self._step, self._stop, self._progress)
            self._stop = patience.over
        try:
            return self._with_survivors(await self._run())
        except (asyncio.CancelledError, CommandGone):
            self._services.sessions.unlisten(self._command_id)
            self._discard()
            raise
        finally:
            if patience is not None:
                patience.close()

    def admit_gap(self, end: int) -> None:
        """Write into the log, at ``end`` (where its durable part ends), that the rest
        is missing (V7).
        """
        self._log.append("header", _MISSING, end)

    def acknowledge(self) -> None:
        """Answer the agent's report of the command's end, so that it may forget the command. Called
        when the outcome is durable.
        """
        self.command.stored.set()
        self._services.sessions.unlisten(self._command_id)

    def _with_survivors(self, outcome: StepOutcome) -> StepOutcome:
        """The outcome with what the command left behind. Raises CommandGone if the agent does not
        know how it ended.
        """
        left = survivors(self.command.receipt)
        if self.command.is_lost:
            raise CommandGone(_SPAWNER_KILLED, left)
        return replace(outcome, clean=False, survivors=left) if left else outcome

    async def _run(self) -> StepOutcome:
        if self._kind.resumes:
            # Before the agent attaches: the command must be known when the agent resumes it.
            self._begin(None)
        session = await self._services.sessions.session(self._lease.instance)
        directory = Workspace(self._spec, workspace(session, self._lease))
        script = self._kind.script(self._step, directory)
        brought: Any = None
        try:
            while True:
                call = script.send(brought)
                await self._perform(call)
                outcome = self.command.result()
                if outcome.state != StepState.SUCCESS:
                    return self._failed(outcome)
                brought = await self._collect(call)
        except StopIteration as end:
            return StepOutcome(StepState.SUCCESS, self.command.rc, result=end.value)
        except (StepFailed, TransferRefused) as error:
            return self._failed(StepOutcome(StepState.FAILURE, None, None, str(error)[:1000]))
        except OSError as error:
            text = f"the hub's disk: {error.strerror or error}"
            return self._failed(StepOutcome(StepState.EXCEPTION, None, None, text))

    def _failed(self, outcome: StepOutcome) -> StepOutcome:
        """Write the outcome's text into the log if there is no exit code: then the agent has not
        written it there. Returns the outcome.
        """
        if outcome.text is not None and outcome.rc is None:
            self._log.append("header", f"{outcome.text}\n".encode())
        return outcome

    # --- one command ------------------------------------------------------------------------------

    async def _perform(self, call: Call) -> None:
        """Run one command on the agent until ``self.command`` has an outcome. A command that cannot
        be resumed begins again each time its connection is lost.
        """
        while True:
            if not self._kind.resumes:
                self._begin(call.transfer)
            if self._kind.resumes or not self._stop.done():
                await self._drive(call)
            if not self.command.outcome.done() and self._stop.done():
                self.command.outcome.set_result(_interrupted(self._stop.result()))
            if self.command.outcome.done():
                if self.command.result().state != StepState.SUCCESS:
                    self._discard()
                return
            self._discard()
            self._log.append("header", b"the connection was lost; beginning again\n")

    def _begin(self, wanted: Wanted | None) -> None:
        """Register a CommandRun for the next command, under a new id unless the
        step's kind resumes.

        ``wanted``: the transfer to open for it. The command before it is acknowledged.
        """
        base = 0
        if not self._kind.resumes:
            self._services.sessions.unlisten(self._command_id)
            base = self._log.end
            key = self._key
            # Opaque: this id is all that names the hub's end of a transfer.
            self._command_id = f"{key.build}.{key.attempt}.{key.index}.{secrets.token_hex(16)}"
        self.command.stored.set()
        self.command = CommandRun(
            self._lease.instance,
            self._log,
            base,
            None if wanted is None else self._services.exchange.open(wanted),
            listens=not self._kind.is_command,
        )
        self._services.sessions.listen(self._command_id, self.command)

    async def _drive(self, call: Call) -> None:
        """Send the command over the agent's session, and again over the next one when a connection
        is lost, until it has an outcome.

        A command that cannot be resumed is sent only once: the method returns when its connection
        is lost, with or without an outcome.
        """
        command = self.command
        while not command.outcome.done():
            session = await self._services.sessions.session(self._lease.instance)
            if session.report is None and self._limits is not None:
                text = f"a stock Buildbot worker cannot limit commands ({self._limits.words})"
                command.outcome.set_result(_not_started(StepState.FAILURE, text))
                return
            try:
                args = await self._args(call, session)
            except (SecretForbidden, SecretRefused) as refusal:
                command.outcome.set_result(_not_started(StepState.EXCEPTION, str(refusal)))
                return
            message = messages.StartCommand(self._command_id, call.command, args)
            try:
                await session.request(message)
                await self._watch(session, command)
                if not self._kind.resumes:
                    return
            except (ConnectionLost, TimeoutError):
                await session.close(1011, "no answer in time")
                if not self._kind.resumes:
                    return
            except RemoteError as error:
                await self._refused(session, str(error))

    async def _refused(self, session: AgentSession, why: str) -> None:
        """Handle the agent's refusal to start the command: wait before it is sent again, or
        set an outcome.

        Raises CommandGone if the agent has lost the command.
        """
        if why == LOST:
            raise CommandGone(why)
        if why == ENDING:  # its slot stays occupied until then (V10)
            self._is_forgotten = True
            await asyncio.sleep(_ENDING_S)
        elif why == STOPPING:  # no fault of the build: it is lost with its agent
            await session.closed.wait()
        elif not self.command.outcome.done():
            text = f"the agent refused: {why}"
            self.command.outcome.set_result(StepOutcome(StepState.EXCEPTION, None, None, text))

    async def _watch(self, session: AgentSession, command: CommandRun) -> None:
        """Wait until the command has ended or the session is closed. If the step is to end early,
        send an interrupt and wait for the end of the command, for a limited time.
        """
        closed = asyncio.ensure_future(session.closed.wait())
        try:
            waits: set[asyncio.Future[Any]] = {closed, command.outcome, self._stop}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if self._stop.done() and not command.outcome.done():
                if not session.closed.is_set():
                    why = self._stop.result().text
                    await session.request(messages.InterruptCommand(self._command_id, why))
                await self._await_interrupted(command, self._stop.result(), closed)
        finally:
            closed.cancel()

    async def _await_interrupted(
        self, command: CommandRun, why: Interruption, closed: asyncio.Future[Any]
    ) -> None:
        """Wait for the end of an interrupted command, for its SIGTERM grace and
        ``INTERRUPT_MARGIN_S``. If it has not ended by then, its outcome is the interruption,
        and not clean.
        """
        grace_s = max((step.sigterm_time_s or 0) for step in self._spec.steps) + INTERRUPT_MARGIN_S
        await asyncio.wait(
            {closed, command.outcome}, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED
        )
        if command.outcome.done():
            command.interrupted = replace(_interrupted(why), rc=command.outcome.result().rc)
        elif not closed.done():
            text = f"{why.text}; the agent did not end it in time"
            command.outcome.set_result(replace(_interrupted(why), text=text, clean=False))

    async def _args(self, call: Call, session: AgentSession) -> dict[str, Any]:
        """The arguments of the command; unless the agent is a stock Buildbot worker, with the
        lease, the limits and the secrets. Raises SecretForbidden, SecretRefused.
        """
        given = await self._secrets(session.report)
        if session.report is None:
            return call.args
        terms = CommandTerms(self._lease.id, self._lease.attempt, secrets=given)
        if self._kind.is_command:
            limits = None if self._limits is None else _on_the_wire(self._limits)
            terms = replace(terms, limits=limits, batch_files=self._step.batch_files)
        return {**call.args, "hostler": terms.body()}

    async def _secrets(self, report: AgentReport | None) -> tuple[CommandSecret, ...]:
        """The step's secrets as they are now, for the agent with this report. Raises
        SecretForbidden, SecretRefused.
        """
        wanted = self._spec.secrets_of(self._key.index)
        if not wanted:
            return ()
        build = await self._services.store.read(builds.get, self._lease.build)
        assert build is not None, "a build that has a lease is kept"
        if report is not None and self._is_forgotten:
            report = replace(report, commands=())
        use = Use(build["submitted_by"], self._lease.worker)
        return await self._services.secrets.for_command(wanted, use, report, self._command_id)

    # --- what it brings -------------------------------------------------------------------------

    async def _collect(self, call: Call) -> dict[str, Any]:
        """The results of the command that has just succeeded, as the kind's script receives them
        (see Call). Files that were transferred are stored.

        Raises StepFailed, TransferRefused, OSError.
        """
        brought = dict(self.command.told)
        transfer = self.command.transfer
        if transfer is not None and call.transfer is not None:
            try:
                exchange = self._services.exchange
                brought["stored"] = await exchange.keep(transfer, call.transfer, self._key)
            finally:
                transfer.discard()
        if call.wants_output:
            brought["stdout"] = await self._output()
        return brought

    def _discard(self) -> None:
        if self.command.transfer is not None:
            self.command.transfer.discard()

    def _progress(self) -> int:
        """A number that changes as long as the step makes progress: the bytes of its log
        and its transfer.
        """
        transfer = self.command.transfer
        return self._log.end + (transfer.size_bytes if transfer else 0)

    async def _output(self) -> bytes:
        """The step's standard output as it is stored, also from before a restart of the hub. Raises
        StepFailed if it is too large.
        """
        if self._log.end > OUTPUT_SIZE_BYTES:
            raise StepFailed(f"more than {OUTPUT_SIZE_BYTES} bytes of output are no property")
        return await self._services.store.insist(_read_output, self._key)


def workspace(session: AgentSession, lease: Lease) -> str:
    """The path of the attempt's own directory on its worker."""
    return f"{session.basedir}/builds/{lease.build}.{lease.attempt}"


def _on_the_wire(limits: Limits) -> extension.CommandLimits:
    memory_bytes = None if limits.memory_mb is None else limits.memory_mb * 2**20
    return extension.CommandLimits(memory_bytes, limits.processes, limits.cpu_percent)


def _not_started(state: StepState, why: str) -> StepOutcome:
    return StepOutcome(state, None, "not_started", why[:1000])


def _interrupted(why: Interruption) -> StepOutcome:
    return StepOutcome(why.state, None, why.failure_reason, why.text)


def _read_output(c: Connection, key: StepKey) -> bytes:
    # In the writer, behind everything that was appended before.
    chunks = log_rows.chunks(c, key.build, key.attempt, key.index, 0, 2 * OUTPUT_SIZE_BYTES)
    return b"".join(chunk.data for chunk in chunks if chunk.stream == "stdout")


@dataclass(frozen=True, slots=True)
class Services:
    """What every attempt of a build uses. ``ended`` wakes those who wait for a build's end."""

    store: Store
    clock: Clock
    controller: Controller
    sessions: Sessions
    logs: Logs
    exchange: Exchange
    ended: Waiters[str]
    secrets: BuildSecrets
