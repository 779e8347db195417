"""Builds: submitted, waiting, running, ended. The store has them; here is what moves them.

Every acknowledged build reaches exactly one terminal result (V6): it is in the store before it is
acknowledged, a lost worker gives it back to the queue, and what cannot be run again ends as an
exception that says why.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Connection, RowMapping

from hostler_hub.builds.logs import Logs, LogSlice, StepKey
from hostler_hub.builds.runner import Runner
from hostler_hub.builds.step_runner import Services
from hostler_hub.builds.views import build_view
from hostler_hub.errors import Conflict, InvalidRequest, NotFound
from hostler_hub.lifecycle import events
from hostler_hub.lifecycle.backoff import Backoff
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.runtime.tasks import Tasks
from hostler_hub.runtime.waiters import Waiters
from hostler_hub.scheduling.dispatcher import Dispatcher
from hostler_hub.scheduling.lease import Lease
from hostler_hub.scheduling.matching import Roster
from hostler_hub.scheduling.planner import Waiting
from hostler_hub.scheduling.reasons import Reasons
from hostler_hub.specs.build import BuildSpec
from hostler_hub.store import builds
from hostler_hub.store.engine import Store
from hostler_hub.store.rows import Row

_log = structlog.get_logger(__name__)

TERMINAL = frozenset({"success", "failure", "exception", "cancelled"})
RETRY = Backoff(first_s=1.0, longest_s=60.0)  # after the loss of a worker
RELEASE_S = 5.0


@dataclass(frozen=True, slots=True)
class _Loss:
    """A lease that was lost. ``not_before``: when its build may run again; None: never."""

    lease: Lease
    reason: str
    at: float
    not_before: float | None


class Queue:
    """The use cases on builds. ``services`` and ``dispatcher`` are set before load()."""

    services: Services
    dispatcher: Dispatcher

    def __init__(
        self, store: Store, clock: Clock, logs: Logs, roster: Roster, reasons: Reasons
    ) -> None:
        self._store = store
        self._clock = clock
        self._logs = logs
        self._roster = roster
        self._reasons = reasons
        self._waiting: dict[str, Waiting] = {}
        self._kinds: dict[str, dict[str, Waiting]] = {}  # the same by what they require
        self._order: list[tuple[int, str]] = []
        self._runners: dict[str, tuple[Runner, asyncio.Task[Any]]] = {}  # by lease
        self._leases: dict[str, dict[str, Lease]] = {}  # by worker, then by id
        self._cleaning: dict[str, asyncio.Future[str | None]] = {}  # by lease that is given back
        self._ended: Waiters[str] = Waiters()
        self._tasks = Tasks()

    async def load(self) -> None:
        """Take up the queue and every open lease as the last hub left them (K6 to K9)."""
        rows = await self._store.read(_load_queue)
        for row in rows:
            self._put(_waiting(row))
        for lease_row, build_row, steps in await self._store.read(_load_running):
            lease = _lease(lease_row)
            self._run(lease, BuildSpec.model_validate(build_row["spec"]), steps)
            if build_row["cancel_reason"] is not None:
                self._runners[lease.id][0].cancel(build_row["cancel_reason"])

    async def aclose(self) -> None:
        """The hub stops: runners end where they are; the next hub takes their leases up."""
        await self._tasks.aclose()

    # --- for people ---------------------------------------------------------------------------

    async def submit(
        self, spec: BuildSpec, *, by: str, idempotency_key: str | None
    ) -> tuple[dict[str, Any], bool]:
        """Store a build durably; (view, created). The same key and spec return the first build."""
        digest = hashlib.sha256(spec.model_dump_json().encode()).hexdigest()
        if idempotency_key is not None:
            known = await self._store.read(builds.by_idempotency_key, by, idempotency_key)
            if known is not None:
                return await self._known(known, digest), False
        self._reasons.refuse_hopeless(spec.requires)
        self._refuse_missing_files(spec)
        now = self._clock.now()
        build_id = new_ulid(int(now * 1000))
        row = _new_row(build_id, spec, by, now) | {
            "idempotency_key": idempotency_key,
            "spec_digest": digest,
        }
        stored = await self._store.write(_insert_once, row)
        if stored["id"] != build_id:  # another request with the same key was faster
            return await self._known(stored, digest), False
        self._put(Waiting(build_id, spec, 0, spec.priority))
        self.dispatcher.wake()
        return build_view(row, []), True

    async def _known(self, row: Row, digest: str) -> dict[str, Any]:
        if row["spec_digest"] != digest:
            raise Conflict(
                f"this Idempotency-Key was used for another build ({row['id']}); "
                "use a new key for a new build"
            )
        return await self.get(row["id"])

    def _refuse_missing_files(self, spec: BuildSpec) -> None:
        for index, step in enumerate(spec.steps):
            sha256 = step.download.file if step.download else None
            if sha256 is not None and not self.services.exchange.files.has(sha256):
                raise InvalidRequest(
                    f"no file {sha256} is stored: store it first (POST /api/v1/files)",
                    pointer=f"/steps/{index}/download/file",
                )

    async def get(self, id: str) -> dict[str, Any]:
        """The build's view; while it waits, with why. Raises NotFound."""
        found = await self._store.read(_with_steps, id)
        if found is None:
            raise NotFound(f"there is no build {id}")
        row, steps = found
        waiting = self._waiting.get(id)
        if waiting is None:
            return build_view(row, steps)
        why = self._reasons.of_build(waiting, self._clock.now())
        return build_view(row, steps, why)

    async def wait(self, id: str, wait_s: float) -> dict[str, Any]:
        """The view once the build has ended, or as it is after ``wait_s`` seconds."""
        with self._ended.waiting(id) as ended:
            view = await self.get(id)
            if view["state"] not in TERMINAL and wait_s > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await ended.wait()
                view = await self.get(id)
            return view

    async def page(
        self, *, state: str | None, worker: str | None, limit: int, after: str | None
    ) -> dict[str, Any]:
        """Builds newest first; ``next`` is the ``after`` of the next page, or None."""
        rows = await self._store.read(
            builds.page, state=state, worker=worker, limit=limit, after=after
        )
        items = [build_view(row, []) for row in rows]
        # Those that are next say why they wait; of the others one can ask by their id.
        waiting = (
            self._waiting[one["id"]] for one in reversed(items) if one["id"] in self._waiting
        )
        why = self._reasons.in_words(waiting, self._clock.now())
        for each in items:
            each["why"] = why.get(each["id"])
        return {"items": items, "next": items[-1]["id"] if len(items) == limit else None}

    async def cancel(self, id: str, *, reason: str | None, by: str) -> dict[str, Any]:
        """End a build: at once while it waits, by interrupting while it runs. Idempotent (A13)."""
        text = f"cancelled by {by}: {reason}" if reason else f"cancelled by {by}"
        outcome = await self._store.write(_cancel, id, text, self._clock.now())
        if outcome is None:
            raise NotFound(f"there is no build {id}")
        self.taken(id)
        if outcome == "finished":
            self.finished(id)
        for runner, _ in list(self._runners.values()):
            if runner.lease.build == id:
                runner.cancel(text)
        return await self.get(id)

    async def read_log(self, id: str, index: int, offset: int, limit: int) -> LogSlice:
        return await self._logs.read(await self._step(id, index), offset, limit)

    async def follow_log(self, id: str, index: int, offset: int) -> AsyncIterator[bytes]:
        """The log as it grows, until the step ends. Raises NotFound before the first byte."""
        key = await self._step(id, index)
        async for data in self._logs.follow(key, offset):
            yield data

    async def _step(self, build_id: str, index: int) -> StepKey:
        found = await self._store.read(builds.get, build_id)
        if found is None:
            raise NotFound(f"there is no build {build_id}")
        if index >= len(found["spec"]["steps"]):
            raise NotFound(f"build {build_id} has no step {index}")
        return StepKey(build_id, max(found["attempts"], 1), index)

    def builds_on(self, worker: str) -> list[str]:
        """The builds that hold a lease on the worker, oldest first."""
        return [lease.build for lease in self._leases.get(worker, {}).values()]

    async def released(self, workers: Sequence[str] | None = None) -> None:
        """Wait, within reason, for builds that have their result to give their slots back.

        Of these workers, or of all.
        """
        tasks = [
            task
            for runner, task in self._runners.values()
            if runner.over and (workers is None or runner.lease.worker in workers)
        ]
        if tasks:
            await asyncio.wait(tasks, timeout=RELEASE_S)

    def counts(self) -> dict[str, int]:
        return {"queued": len(self._waiting), "running": len(self._runners)}

    # --- for the dispatcher -------------------------------------------------------------------

    def ready(self, now: float) -> list[Waiting]:
        """Builds that may start, highest priority first, then the oldest."""
        waiting = (self._waiting[build_id] for _, build_id in self._order)
        return [build for build in waiting if not _rests(build, now)]

    def next_ready_at(self, now: float) -> float | None:
        later = [build.not_before for build in self._waiting.values() if _rests(build, now)]
        return min(later, default=None)

    def waiting(self) -> Iterable[Waiting]:
        return self._waiting.values()

    def need(self, worker: str) -> str | None:
        """The oldest queued build that fits the worker, one that waits to be retried too."""
        if not self._waiting:
            return None
        matcher = self._roster.matcher()
        found = (
            next(iter(alike))
            for kind, alike in self._kinds.items()
            if worker in matcher.fitting(kind, next(iter(alike.values())).spec.requires)
        )
        return min(found, default=None)

    def taken(self, build: str) -> None:
        waiting = self._waiting.pop(build, None)
        if waiting is not None:
            del self._order[bisect.bisect_left(self._order, waiting.order)]
            alike = self._kinds[waiting.kind]
            del alike[build]
            if not alike:
                del self._kinds[waiting.kind]

    def start(self, lease: Lease, spec: BuildSpec, steps: Sequence[Any]) -> None:
        self._run(lease, spec, steps)

    # --- for runners and the controller -------------------------------------------------------

    def finished(self, build_id: str) -> None:
        """Wake who waits for the build's end."""
        self._ended.wake(build_id)

    def lose(self, lease_ids: Sequence[str], reason: str, *, still_running: bool) -> None:
        """The worker of these leases is lost: their builds go back to the queue (V6).

        ``still_running``: as soon as they cannot run on their instance any more (V5).
        """
        for lease_id in lease_ids:
            losing = self._lose(lease_id, reason, still_running)
            self._tasks.spawn(losing, f"lose lease {lease_id}")

    def forfeit(self, lease: Lease, reason: str, *, clean: bool = True) -> None:
        """The worker is well, but this build's commands are gone from it: run it again."""
        self._tasks.spawn(self._forfeit(lease, reason, clean), f"forfeit lease {lease.id}")

    async def _forfeit(self, lease: Lease, reason: str, clean: bool) -> None:
        running = self._runners.get(lease.id)
        if running is None:
            return
        runner, task = running
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        trouble = await self._clean(runner) if clean else reason
        loss = self._loss(runner, reason)
        outcome: list[str | None] = []
        event = events.Released(
            at=self._clock.now(),
            lease=lease.id,
            finished=False,
            clean=trouble is None,
            cause=trouble or reason,
        )

        def give_back(c: Connection) -> None:
            outcome[:] = [_give_back(c, loss)]

        # One transaction: between the two a dead hub would leave a slot that nobody has cleaned.
        if not await self.services.controller.insist(lease.worker, event, give_back):
            await self._store.insist(give_back)
        self._lost(runner, loss, outcome[0])

    async def _clean(self, runner: Runner) -> str | None:
        """V10: what the build left in the slot goes; why it does not, or None."""
        cleaning = asyncio.ensure_future(runner.clean_workspace())
        self._cleaning[runner.lease.id] = cleaning
        try:
            await asyncio.wait({cleaning})
            return "its worker was lost" if cleaning.cancelled() else cleaning.result()
        finally:
            cleaning.cancel()
            del self._cleaning[runner.lease.id]

    async def _lose(self, lease_id: str, reason: str, still_running: bool) -> None:
        if lease_id in self._cleaning:
            self._cleaning[lease_id].cancel()  # whoever waits for it gives the build back
        running = self._runners.pop(lease_id, None)
        if running is None:
            return
        runner, task = running
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if still_running:  # a hub that dies meanwhile leaves the lease open, for the next to end
            await self.services.controller.over(runner.lease.worker, runner.lease.instance)
        loss = self._loss(runner, reason)
        self._lost(runner, loss, await self._store.insist(_give_back, loss))

    def _loss(self, runner: Runner, reason: str) -> _Loss:
        now, lease = self._clock.now(), runner.lease
        not_before = now + RETRY.delay_s(lease.attempt)
        retry = lease.attempt <= runner.spec.retry.on_loss
        return _Loss(lease, reason, now, not_before if retry else None)

    def _lost(self, runner: Runner, loss: _Loss, outcome: str | None) -> None:
        """The build has been given back, with that outcome."""
        lease, spec, reason = runner.lease, runner.spec, loss.reason
        not_before = loss.not_before or 0.0
        _log.warning("lease lost", build=lease.build, worker=lease.worker, reason=reason)
        if outcome == "queued":
            self._put(Waiting(lease.build, spec, lease.attempt, spec.priority, not_before))
            self.dispatcher.wake()
        elif outcome is not None:
            self.finished(lease.build)
        for index in range(len(spec.steps)):
            self._logs.changed(StepKey(lease.build, lease.attempt, index))

    def _run(self, lease: Lease, spec: BuildSpec, steps: Sequence[Any]) -> None:
        runner = Runner(self.services, lease, spec, steps)
        task = self._tasks.spawn(
            self._attempt(runner), f"build {lease.build} attempt {lease.attempt}"
        )
        self._runners[lease.id] = (runner, task)
        self._leases.setdefault(lease.worker, {})[lease.id] = lease
        task.add_done_callback(lambda _: self._ran(lease))

    async def _attempt(self, runner: Runner) -> None:
        try:
            await runner.run()
        except Exception as error:  # noqa: BLE001 - no build waits for ever for our mistake
            _log.error("runner broke", build=runner.lease.build, exc_info=error)
            text = f"the hub failed in it: {type(error).__name__}: {error}"[:1000]
            self.forfeit(runner.lease, text, clean=False)
            await asyncio.Event().wait()  # until we are cancelled for it

    def _ran(self, lease: Lease) -> None:
        self._runners.pop(lease.id, None)
        held = self._leases.get(lease.worker, {})
        held.pop(lease.id, None)
        if not held:
            self._leases.pop(lease.worker, None)

    def _put(self, build: Waiting) -> None:
        if build.id not in self._waiting:
            self._waiting[build.id] = build
            bisect.insort(self._order, build.order)
            self._kinds.setdefault(build.kind, {})[build.id] = build


def _rests(build: Waiting, now: float) -> bool:
    """Whether it waits after a loss. Nobody rests longer: the clock was set back then (A9)."""
    return 0 < build.not_before - now <= RETRY.longest_s


def _new_row(build_id: str, spec: BuildSpec, by: str, now: float) -> dict[str, Any]:
    return {
        "id": build_id,
        "name": spec.name,
        "state": "queued",
        "spec": spec.model_dump(mode="json"),
        "priority": spec.priority,
        "submitted_by": by,
        "submitted_at": now,
        "not_before": None,
        "started_at": None,
        "finished_at": None,
        "worker": None,
        "attempts": 0,
        "result_text": None,
        "cancel_reason": None,
    }


def _waiting(row: Row) -> Waiting:
    spec = BuildSpec.model_validate(row["spec"])
    return Waiting(row["id"], spec, row["attempts"], row["priority"], row["not_before"] or 0.0)


def _lease(row: Row) -> Lease:
    return Lease(row["id"], row["build"], row["worker"], row["instance"], row["epoch"])


def _load_queue(c: Connection) -> Sequence[RowMapping]:
    return builds.queued(c, float("inf"), 1_000_000)


def _load_running(c: Connection) -> list[tuple[RowMapping, RowMapping, Sequence[RowMapping]]]:
    found = []
    for lease in builds.open_leases(c):
        build = builds.get(c, lease["build"])
        if build is not None:
            found.append((lease, build, builds.steps(c, lease["build"], lease["epoch"])))
    return found


def _insert_once(c: Connection, row: dict[str, Any]) -> Row:
    """Insert, unless the idempotency key brought the build before."""
    if row["idempotency_key"] is not None:
        known = builds.by_idempotency_key(c, row["submitted_by"], row["idempotency_key"])
        if known is not None:
            return known
    builds.insert(c, row)
    return row


def _with_steps(c: Connection, build_id: str) -> tuple[RowMapping, Sequence[RowMapping]] | None:
    row = builds.get(c, build_id)
    if row is None:
        return None
    return row, builds.steps(c, build_id, row["attempts"]) if row["attempts"] else []


def _cancel(c: Connection, build_id: str, reason: str, at: float) -> str | None:
    row = builds.get(c, build_id)
    if row is None:
        return None
    if row["state"] == "queued" and builds.finish(c, build_id, "cancelled", reason, at):
        return "finished"
    builds.request_cancel(c, build_id, reason)
    return "asked"


def _give_back(c: Connection, loss: _Loss) -> str | None:
    """The build's next state after its worker was lost; None when it had a result already."""
    lease, reason, at = loss.lease, loss.reason, loss.at
    builds.end_lease(c, lease.id, at, reason)
    row = builds.get(c, lease.build)
    attempt = lease.attempt
    if row is not None and row["cancel_reason"] is not None:
        ended = builds.finish(
            c, lease.build, "cancelled", row["cancel_reason"], at, attempt=attempt
        )
        return "cancelled" if ended else None
    text = f"attempt {attempt}: {reason}"
    if loss.not_before is not None:
        again = builds.requeue(c, lease.build, loss.not_before, text, attempt=attempt)
        return "queued" if again else None
    text = f"lost its worker {attempt} times, last: {reason}"
    ended = builds.finish(c, lease.build, "exception", text, at, attempt=attempt)
    return "exception" if ended else None
