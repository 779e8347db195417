"""Runs one leased build on the agent that holds it, step by step.

An agent's report is acknowledged when it is durable. The last step's result and the build's result
are one transaction (V8); when the slot has been cleaned, the end of the lease and the release of
the slot are another (V10).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection

from hostler_agent.wire import messages
from hostler_agent.wire.errors import ProtocolError, RemoteError
from hostler_agent.wire.extension import END_LEASE, NAME, STOPPING, CommandTerms, Receipt
from hostler_hub.builds import states
from hostler_hub.builds.command import CommandRun, survivors
from hostler_hub.builds.logs import StepKey, StoredLog
from hostler_hub.builds.quotas import Account
from hostler_hub.builds.states import Interruption, StepOutcome
from hostler_hub.builds.step_runner import Services, StepRun, workspace
from hostler_hub.lifecycle import events
from hostler_hub.scheduling.lease import Lease
from hostler_hub.specs.build import BuildSpec
from hostler_hub.specs.states import BuildState, StepState
from hostler_hub.store import builds
from hostler_hub.store import logs as log_rows
from hostler_hub.store.errors import LogGap
from hostler_hub.workers.agents.session import AgentSession
from hostler_hub.workers.errors import ConnectionLost

_log = structlog.get_logger(__name__)

CLEAN_DEADLINE_S = 120.0
NAMED_SURVIVORS = 10

# How many seconds an agent has to resend the output that an outage of the store lost: within a
# minute it notices that it gets no answer, and then it reconnects.
RESENT_S = 180

T = TypeVar("T")


class Runner:
    """One attempt of one build, from its lease to its result."""

    def __init__(
        self,
        services: Services,
        lease: Lease,
        spec: BuildSpec,
        rows: Sequence[Any],
        account: Account | None = None,
    ) -> None:
        """``account``: the submitter's, of an attempt that an earlier hub has begun. Its command
        must be known before its agent comes back, so run() then waits for nothing before that.
        """
        self._services = services
        self._known_account = account
        self.lease = lease
        self.over = False  # the build has its result; what is left is to give the slot back
        self.spec = spec
        self._step: StepRun | None = None
        self._states = [StepState(row["state"]) for row in rows]
        self._began: dict[int, float] = {}
        self._logs = [StoredLog(row["log_size_bytes"], row["log_cut_at"]) for row in rows]
        self._outcomes = [_outcome_of(row) for row in rows]
        self._interrupt: asyncio.Future[Interruption] = asyncio.get_running_loop().create_future()

    def cancel(self, reason: str) -> None:
        """Interrupt the build, which ends as cancelled for ``reason``. A second call
        changes nothing (A13).
        """
        self._end_early(StepState.CANCELLED, reason)

    def _end_early(self, state: StepState, reason: str) -> None:
        if not self._interrupt.done():
            self._interrupt.set_result(Interruption(state, "interrupted", reason))

    async def run(self) -> None:
        """Run the steps that are left, store the build's result, and release the slot.

        Raises CommandGone if the agent has lost a command; then the build has no result.
        """
        timer = None
        if self.spec.timeout_s is not None:
            timer = self._services.clock.call_after(self.spec.timeout_s, self._time_out)
        try:
            self._account = self._known_account or await self._begin()
            await self._run_steps()
        finally:
            if timer is not None:
                timer.cancel()

    async def _begin(self) -> Account:
        """Look up whose quota it is, and remove the artifacts of the attempts before."""
        lease, exchange = self.lease, self._services.exchange
        by = await self._services.store.insist(builds.submitter, lease.build)
        account = exchange.quotas.account(by)
        if lease.attempt > 1:
            await exchange.artifacts.forget_before(lease.build, lease.attempt, account)
        return account

    def _time_out(self) -> None:
        text = f"the build took longer than {self.spec.timeout_s:g} s"
        self._end_early(StepState.FAILURE, text)

    # --- steps ----------------------------------------------------------------------------------

    async def _run_steps(self) -> None:
        while True:
            index = None
            if not self._interrupt.done():
                index = states.next_step(self.spec.steps, self._states)
            if index is None:
                await self._finish(None, None)
                return
            step = await self._run_step(index)
            over = states.next_step(self.spec.steps, self._states) is None
            if over or self._interrupt.done():
                await self._finish(index, step)
                return
            await self._insist(step, self._ending(index, step))
            self._acknowledge(index, step)

    async def _run_step(self, index: int) -> StepRun:
        services, key = self._services, StepKey(*self._key(index))
        log = services.logs.writer(key, self._account, self._logs[index])
        step = StepRun(services, self.lease, self.spec, key, log, self._interrupt)
        self._step = step
        if self._states[index] == StepState.PENDING:
            self._states[index] = StepState.RUNNING
            self._began[index] = services.clock.now()
            started = {"state": StepState.RUNNING.value, "started_at": self._began[index]}
            services.store.write(builds.update_step, *self._key(index), started)
        outcome = await step.run()
        self._states[index], self._outcomes[index] = outcome.state, outcome
        return step

    # --- the end --------------------------------------------------------------------------------

    async def _finish(self, index: int | None, step: StepRun | None) -> None:
        """Store the end of the last step, the steps left out as skipped, and the build's result, in
        one transaction; then release the slot.

        ``index`` and ``step``: the step that has just ended, or None.
        """
        state, text = self._result()
        at = self._services.clock.now()
        lease = self.lease

        def write(c: Connection, whole: bool) -> bool:
            if index is not None and step is not None:
                self._end_step(c, index, step, whole=whole)
            for skipped, step_state in enumerate(self._states):
                if step_state == StepState.PENDING:
                    builds.update_step(c, *self._key(skipped), {"state": StepState.SKIPPED.value})
            return builds.finish(c, lease.build, state, text, at, attempt=lease.attempt)

        first = await self._insist(step, write)
        for number in range(len(self._states)):
            self._services.logs.changed(StepKey(lease.build, lease.attempt, number))
        self.over = True
        self._services.ended.wake(lease.build)
        _log.info("build finished", build=lease.build, state=state.value, worker=lease.worker)
        try:
            await self._release(finished=first)
        finally:
            # Not before: an agent that is about to leave waits for this, and would else be gone
            # before the lease has ended.
            if index is not None and step is not None:
                self._acknowledge(index, step)

    async def _insist(self, step: StepRun | None, write: Callable[[Connection, bool], T]) -> T:
        """Store a step's end with ``write`` when the step's log is complete (V7). Returns
        what ``write`` does.

        An agent resends the output that an outage of the store lost. If it has not done so within
        ``RESENT_S``, as Buildbot's own worker never does, the gap is written into the log and the
        step's end is stored without the missing output.
        """
        insist, tries_left = self._services.store.insist, RESENT_S
        while True:
            try:
                return await insist(write, tries_left > 0)
            except LogGap as gap:
                tries_left -= 1
                if not tries_left and step is not None:
                    step.admit_gap(gap.end)
            await asyncio.sleep(1)

    def _ending(self, index: int, step: StepRun) -> Callable[[Connection, bool], None]:
        def write(c: Connection, whole: bool) -> None:
            self._end_step(c, index, step, whole=whole)

        return write

    def _end_step(self, c: Connection, index: int, step: StepRun, *, whole: bool) -> None:
        if whole:
            log_rows.require(c, *self._key(index), step.command.owed)
        builds.update_step(c, *self._key(index), self._ended(index, step))

    def _result(self) -> tuple[BuildState, str | None]:
        if self._interrupt.done():
            why = self._interrupt.result()
            return BuildState(why.state.value), why.text
        return states.result_of(self.spec.steps, self._outcomes)

    async def _release(self, *, finished: bool) -> None:
        """Remove the workspace, end the lease and release the slot. The slot is released as clean
        only if nothing of the build is left in it; otherwise its instance is ended (V10).
        """
        trouble = await self.clean_workspace()
        leaving = trouble == STOPPING
        trouble = _survived(self._outcomes) or (None if leaving else trouble)
        lease, at = self.lease, self._services.clock.now()
        event = events.Released(
            at=at,
            lease=lease.id,
            finished=finished,
            clean=trouble is None,
            cause=trouble or "build finished",
            leaving=leaving,
        )

        def end(c: Connection) -> None:
            builds.end_lease(c, lease.id, at, event.cause)

        # The lease ends in the event's transaction; alone, if the worker was removed meanwhile.
        if not await self._services.controller.handle_until_stored(lease.worker, event, end):
            await self._services.store.insist(end)

    def acknowledge_loss(self) -> None:
        """Answer the agent's report of a command that it has lost, if it reported one. Called when
        the loss is durable: a hub that dies before hears the report again.
        """
        if self._step is not None:
            self._step.acknowledge()

    async def clean_workspace(self) -> str | None:
        """Remove the attempt's directory on the worker, and whatever else its agent finds of the
        build there. Returns why that failed, or None.

        STOPPING is returned as it is: an agent that leaves takes no more commands, and no build
        comes after this one.
        """
        command = CommandRun(self.lease.instance, log=None)
        command.stored.set()  # nothing of it is kept
        # A new id each time: an agent that did it for the last hub would not do it again (K10).
        command_id = f"{self.lease.build}.{self.lease.attempt}.clean.{secrets.token_hex(8)}"
        self._services.sessions.listen(command_id, command)
        try:
            async with asyncio.timeout(CLEAN_DEADLINE_S):
                session = await self._services.sessions.session(self.lease.instance)
                start = messages.StartCommand(command_id, *self._end_lease(session))
                await session.request(start)
                outcome = await command.outcome
        except (ConnectionLost, RemoteError, TimeoutError) as error:
            if str(error) == STOPPING:
                return STOPPING
            return f"its workspace could not be removed: {str(error) or 'no answer in time'}"
        finally:
            self._services.sessions.unlisten(command_id)
        if outcome.state != StepState.SUCCESS:
            why = f"rc {outcome.rc}" if outcome.text is None else outcome.text
            return f"its workspace could not be removed ({why})"
        return None

    def _end_lease(self, session: AgentSession) -> tuple[str, dict[str, Any]]:
        """The command, with its arguments, that ends the lease on its agent: a stock one removes
        the directory alone.
        """
        args = {
            "paths": [workspace(session, self.lease)],
            "logEnviron": False,
            "timeout": 100,
        }
        announced = session.info.get("worker_commands")
        if not isinstance(announced, dict) or END_LEASE not in announced:
            return "rmdir", args
        terms = CommandTerms(self.lease.id, self.lease.attempt)
        return END_LEASE, {**args, NAME: terms.body()}

    # --- small parts ------------------------------------------------------------------------------

    def _key(self, index: int) -> tuple[str, int, int]:
        return self.lease.build, self.lease.attempt, index

    def _ended(self, index: int, step: StepRun) -> dict[str, Any]:
        outcome, receipt = self._outcomes[index], step.command.receipt
        # Once more: an outage may have lost the note of the step's beginning, which nobody awaits.
        began = {"started_at": self._began[index]} if index in self._began else {}
        return {
            **began,
            "state": outcome.state.value,
            "rc": outcome.rc,
            "failure_reason": outcome.failure_reason,
            "finished_at": self._services.clock.now(),
            "receipt": None if receipt is None else receipt.pair()[1],
            "result": outcome.result,
        }

    def _acknowledge(self, index: int, step: StepRun) -> None:
        step.acknowledge()
        self._services.logs.changed(StepKey(self.lease.build, self.lease.attempt, index))


def _outcome_of(row: Any) -> StepOutcome:
    """The outcome that a step's row holds, perhaps of a step that an earlier hub has run. Processes
    that survived the step still occupy the slot (V10), as they may where a receipt that an earlier
    hub has stored is none.
    """
    receipt = row["receipt"]
    left: tuple[str, ...] = ()
    clean = True
    try:
        left = survivors(None if receipt is None else Receipt.parse(receipt))
    except ProtocolError as error:
        clean = False
        _log.warning("stored receipt is none", build=row["build"], reason=str(error))
    return StepOutcome(
        row["state"], row["rc"], row["failure_reason"], clean=clean and not left, survivors=left
    )


def _survived(outcomes: Sequence[StepOutcome]) -> str | None:
    """Why the slot cannot be used again, with the names of the processes that are still in it; None
    if no process survived.
    """
    if all(outcome.clean for outcome in outcomes):
        return None
    return name_survivors([name for outcome in outcomes for name in outcome.survivors])


def name_survivors(names: Sequence[str]) -> str:
    """A sentence with the first few of the names."""
    named = ", ".join(names[:NAMED_SURVIVORS])
    more = "" if len(names) <= NAMED_SURVIVORS else f" and {len(names) - NAMED_SURVIVORS} more"
    return f"processes of the build survived its end: {named or 'the agent names none'}{more}"
