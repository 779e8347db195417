"""Supervises the attempts of builds: runs each one under its lease, and requeues a build when its
worker is lost.

A build whose worker is lost returns to the backlog as often as its spec allows; after that it ends
as an exception that says why (V6). The controller orders losses through ``lost_leases``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Connection, RowMapping

from hostler_agent.wire.extension import STOPPING
from hostler_hub.builds.errors import CommandGone
from hostler_hub.builds.logs import StepKey
from hostler_hub.builds.quotas import Account
from hostler_hub.builds.runner import Runner, name_survivors
from hostler_hub.builds.step_runner import Services
from hostler_hub.builds.views import BuildCounts
from hostler_hub.lifecycle import commands, events
from hostler_hub.runtime.tasks import Tasks
from hostler_hub.scheduling.backlog import RETRY, Backlog
from hostler_hub.scheduling.lease import Lease
from hostler_hub.scheduling.planner import Waiting
from hostler_hub.specs.build import BuildSpec
from hostler_hub.specs.states import BuildState
from hostler_hub.store import builds
from hostler_hub.store.rows import Row

_log = structlog.get_logger(__name__)

# How long a request about workers waits for builds that have ended to free their slots.
RELEASE_S = 5.0


@dataclass(frozen=True, slots=True)
class _Loss:
    """A lost lease. ``not_before``: when its build may run again (seconds since the
    epoch); None: never.
    """

    lease: Lease
    reason: str
    at: float
    not_before: float | None


class Supervisor:
    """Runs the attempts of builds; each is known by its lease."""

    def __init__(
        self,
        services: Services,
        backlog: Backlog,
        lost_leases: asyncio.Queue[commands.LoseLeases],
    ) -> None:
        self._services = services
        self._backlog = backlog
        self._lost_leases = lost_leases
        self._attempts: dict[str, tuple[Runner, asyncio.Task[Any]]] = {}  # by lease
        self._leases: dict[str, dict[str, Lease]] = {}  # by worker, then by id
        self._cleaning: dict[str, asyncio.Future[str | None]] = {}  # by lease that is given back
        self._tasks = Tasks()

    async def load(self) -> None:
        """Resume the attempt of every open lease that the previous hub left (K6 to K9), and begin
        to carry out ``lost_leases``.
        """
        await self._services.logs.load()
        for lease_row, build_row, steps in await self._services.store.read(_load_running):
            lease = _lease(lease_row)
            account = self._services.exchange.quotas.account(build_row["submitted_by"])
            self._run(lease, BuildSpec.model_validate(build_row["spec"]), steps, account)
            if build_row["cancel_reason"] is not None:
                self._attempts[lease.id][0].cancel(build_row["cancel_reason"])
        self._tasks.spawn(self._lose_as_ordered(), "lost leases")

    async def aclose(self) -> None:
        """Stop all attempts where they are, because the hub stops. The next hub resumes them
        by their leases.
        """
        await self._tasks.aclose()

    # --- attempts -------------------------------------------------------------------------------

    def start(self, lease: Lease, spec: BuildSpec, steps: Sequence[Any]) -> None:
        """Run the attempt that the dispatcher has just given ``lease``; ``steps`` are its rows."""
        self._run(lease, spec, steps)

    def _run(
        self, lease: Lease, spec: BuildSpec, steps: Sequence[Any], account: Account | None = None
    ) -> None:
        runner = Runner(self._services, lease, spec, steps, account)
        task = self._tasks.spawn(
            self._attempt(runner), f"build {lease.build} attempt {lease.attempt}"
        )
        self._attempts[lease.id] = (runner, task)
        self._leases.setdefault(lease.worker, {})[lease.id] = lease
        task.add_done_callback(lambda _: self._forget(lease))

    def cancel(self, build: str, reason: str) -> None:
        """Interrupt the build's attempt, if one is running."""
        for runner, _ in list(self._attempts.values()):
            if runner.lease.build == build:
                runner.cancel(reason)

    async def _attempt(self, runner: Runner) -> None:
        """Run one attempt to its end; if it cannot go on, requeue its build."""
        try:
            await runner.run()
        except CommandGone as gone:
            left = name_survivors(gone.survivors) if gone.survivors else None
            self._requeue_soon(runner, left or str(gone), clean=left is None)
        except Exception as error:  # noqa: BLE001 - no build waits for ever for a fault of the hub
            _log.error("runner broke", build=runner.lease.build, exc_info=error)
            text = f"the hub failed in it: {type(error).__name__}: {error}"[:1000]
            self._requeue_soon(runner, text, clean=False)

    def _forget(self, lease: Lease) -> None:
        self._attempts.pop(lease.id, None)
        held = self._leases.get(lease.worker, {})
        held.pop(lease.id, None)
        if not held:
            self._leases.pop(lease.worker, None)

    # --- for the workers' service (workers.workload.RunningBuilds) --------------------------------

    def builds_on(self, worker: str) -> list[str]:
        """The ids of the builds that hold a lease on the worker, oldest first."""
        return [lease.build for lease in self._leases.get(worker, {}).values()]

    async def released(self, workers: Sequence[str] | None = None) -> None:
        """Wait, at most ``RELEASE_S``, until builds that have ended have freed their slots on
        ``workers``, or on all workers.
        """
        tasks = [
            task
            for runner, task in self._attempts.values()
            if runner.over and (workers is None or runner.lease.worker in workers)
        ]
        if tasks:
            await asyncio.wait(tasks, timeout=RELEASE_S)

    def counts(self) -> BuildCounts:
        return BuildCounts(queued=len(self._backlog), running=len(self._attempts))

    # --- attempts that cannot go on -------------------------------------------------------------

    def _requeue_soon(self, runner: Runner, reason: str, *, clean: bool) -> None:
        """Requeue the build of an attempt that cannot go on, in the background. ``clean``: first
        remove its workspace.
        """
        self._forget(runner.lease)  # from now on it cannot be lost as well
        requeuing = self._requeue(runner, reason, clean)
        self._tasks.spawn(requeuing, f"requeue lease {runner.lease.id}")

    async def _requeue(self, runner: Runner, reason: str, clean: bool) -> None:
        """End the lease of an attempt that cannot go on although its worker was not lost, and
        requeue the build.

        ``clean``: remove its workspace first. Only if that succeeds is the slot released as clean.
        """
        trouble = await self._clean(runner) if clean else reason
        leaving = trouble == STOPPING  # then no build comes after this one
        if leaving:
            trouble = None
        services, lease = self._services, runner.lease
        loss = self._loss(runner, reason)
        event = events.Released(
            at=loss.at,
            lease=lease.id,
            finished=False,
            clean=trouble is None,
            cause=trouble or reason,
            leaving=leaving,
        )

        def give_back(c: Connection) -> None:
            _give_back(c, loss)

        # One transaction: a hub that died between two would leave a slot that nobody has cleaned.
        if not await services.controller.handle_until_stored(lease.worker, event, give_back):
            await services.store.insist(give_back)
        runner.acknowledge_loss()
        self._given_back(runner, loss, await services.store.insist(_state_of, lease.build))

    async def _clean(self, runner: Runner) -> str | None:
        """Remove the build's workspace from its slot (V10). Returns why that failed, or None."""
        cleaning = asyncio.ensure_future(runner.clean_workspace())
        self._cleaning[runner.lease.id] = cleaning
        try:
            await asyncio.wait({cleaning})
            return "its worker was lost" if cleaning.cancelled() else cleaning.result()
        finally:
            cleaning.cancel()
            del self._cleaning[runner.lease.id]

    async def _lose_as_ordered(self) -> None:
        """Carry out the orders in ``lost_leases`` as they come, until cancelled."""
        while True:
            order = await self._lost_leases.get()
            for lease_id in order.leases:
                losing = self._lose(lease_id, order.reason, order.still_running)
                self._tasks.spawn(losing, f"lose lease {lease_id}")

    async def _lose(self, lease_id: str, reason: str, still_running: bool) -> None:
        """Stop the attempt of a lost lease, and requeue its build (V6).

        ``still_running``: first wait until it cannot run on its instance any more (V5).
        """
        if lease_id in self._cleaning:
            self._cleaning[lease_id].cancel()  # _requeue() waits for it and gives the build back
        running = self._attempts.pop(lease_id, None)
        if running is None:
            return
        runner, task = running
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        services, lease = self._services, runner.lease
        if still_running:  # a hub that dies meanwhile leaves the lease open, for the next to end
            await services.controller.wait_until_stopped(lease.worker, lease.instance)
        loss = self._loss(runner, reason)
        await services.store.insist(_give_back, loss)
        self._given_back(runner, loss, await services.store.insist(_state_of, lease.build))

    def _loss(self, runner: Runner, reason: str) -> _Loss:
        """The loss of the attempt's lease at this moment; the build may run again if its
        spec allows it.
        """
        now, lease = self._services.clock.now(), runner.lease
        retry = lease.attempt <= runner.spec.retry.on_loss
        return _Loss(lease, reason, now, now + RETRY.delay_s(lease.attempt) if retry else None)

    def _given_back(self, runner: Runner, loss: _Loss, state: BuildState | None) -> None:
        """Follow up a lease that has ended in the store. ``state``: the state of its
        build after that.

        A queued build goes into the backlog; otherwise those who wait for its end are woken.
        Followers of the attempt's logs are woken, too.
        """
        lease, spec = runner.lease, runner.spec
        _log.warning("lease lost", build=lease.build, worker=lease.worker, reason=loss.reason)
        if state is BuildState.QUEUED:
            not_before = loss.not_before or 0.0
            self._backlog.put(Waiting(lease.build, spec, lease.attempt, spec.priority, not_before))
        else:
            self._services.ended.wake(lease.build)
        for index in range(len(spec.steps)):
            self._services.logs.changed(StepKey(lease.build, lease.attempt, index))


def _lease(row: Row) -> Lease:
    return Lease(row["id"], row["build"], row["worker"], row["instance"], row["epoch"])


def _load_running(c: Connection) -> list[tuple[RowMapping, RowMapping, Sequence[RowMapping]]]:
    found = []
    for lease in builds.open_leases(c):
        build = builds.get(c, lease["build"])
        if build is not None:
            found.append((lease, build, builds.steps(c, lease["build"], lease["epoch"])))
    return found


def _state_of(c: Connection, build: str) -> BuildState | None:
    row = builds.get(c, build)
    return None if row is None else BuildState(row["state"])


def _give_back(c: Connection, loss: _Loss) -> None:
    """End the lease; then requeue the build, or finish it as cancelled or as an exception. A build
    that has a result already keeps it.
    """
    lease, reason, at, attempt = loss.lease, loss.reason, loss.at, loss.lease.attempt
    builds.end_lease(c, lease.id, at, reason)
    row = builds.get(c, lease.build)
    if row is not None and row["cancel_reason"] is not None:
        builds.finish(
            c, lease.build, BuildState.CANCELLED, row["cancel_reason"], at, attempt=attempt
        )
    elif loss.not_before is not None:
        text = f"attempt {attempt}: {reason}"
        builds.requeue(c, lease.build, loss.not_before, text, attempt=attempt)
    else:
        text = f"lost its worker {attempt} times, last: {reason}"
        builds.finish(c, lease.build, BuildState.EXCEPTION, text, at, attempt=attempt)
