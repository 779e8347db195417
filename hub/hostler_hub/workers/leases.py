"""The use cases on operators' leases: acquire a worker, renew the lease, release it.

The lifecycle core decides what a lease is and when it is granted; this module decides who may ask
for it. A lease is fenced by its id: a request that names an ended lease is refused and changes
nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace

import structlog

from hostler_hub.errors import Conflict, Forbidden, NotFound
from hostler_hub.lifecycle import IllegalTransition, OperatorLease, State, Worker, events
from hostler_hub.lifecycle.model import (
    why_no_instance,
    why_not_askable,
    why_not_grantable,
)
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.runtime.tasks import Tasks
from hostler_hub.specs.caller import Caller, Role
from hostler_hub.store import operator_leases
from hostler_hub.store.engine import Store
from hostler_hub.workers.controller import Controller
from hostler_hub.workers.lease_index import LeaseIndex
from hostler_hub.workers.lease_views import (
    LeaseList,
    LeaseResult,
    LeaseView,
    lease_view,
    past_lease_view,
)
from hostler_hub.workers.registry import Entry, Registry

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a person asks for when they lease a worker.

    ``ttl_s``: for how many seconds to hold it. ``wait_s``: how many seconds to wait for it at most;
    0 refuses a lease that cannot be granted at once. ``keep``: whether the instance goes on
    afterwards.
    """

    ttl_s: float
    wait_s: float
    reason: str | None
    keep: bool


class Leases:
    """Acquires, renews, releases and lists operators' leases.

    ``offered`` is set when a worker may have become available for a lease that waits for it.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        registry: Registry,
        controller: Controller,
        index: LeaseIndex,
        offered: asyncio.Event,
    ) -> None:
        self._store = store
        self._clock = clock
        self._registry = registry
        self._controller = controller
        self._index = index
        self._offered = offered
        self._tasks = Tasks()

    def load(self) -> None:
        """Index the open leases that the last hub left; start instances for those that wait."""
        for entry in self._registry:
            if entry.life.person is not None:
                self._index.add(entry.life.person.id, entry.life.name)
        self._start_instances()

    async def run(self) -> None:
        """Start instances for waiting leases whenever workers are offered, until cancelled."""
        while True:
            await self._offered.wait()
            self._offered.clear()
            self._start_instances()

    async def settle(self, deadline_s: float) -> bool:
        """Wait until no start is in progress. Returns False if the deadline passed first."""
        return await self._tasks.settle(deadline_s)

    async def aclose(self) -> None:
        await self._tasks.aclose()

    # --- for people ---------------------------------------------------------------------------

    async def acquire(self, worker: str, terms: Terms, *, by: Caller, dry_run: bool) -> LeaseResult:
        """Lease a worker for the caller, or begin to wait for it.

        A caller who already holds the worker, or waits for it, gets that lease unchanged. Raises
        NotFound, and Conflict if the worker cannot be leased.
        """
        entry = self._registry.get(worker)
        person = entry.life.person
        if person is not None and person.holder == by.name:
            return LeaseResult(changed=False, lease=lease_view(entry, person))
        self._refuse(entry.life, terms)
        if dry_run:
            return LeaseResult(changed=True, lease=None)
        now = self._clock.now()
        lease = OperatorLease(
            id=new_ulid(int(now * 1000)),
            holder=by.name,
            asked_at=now,
            until=now + terms.wait_s,
            ttl_s=terms.ttl_s,
            reason=terms.reason,
            keep=terms.keep,
        )
        self._index.add(lease.id, worker)
        try:
            await self._controller.handle(worker, events.PersonAsked(at=now, lease=lease))
        except (IllegalTransition, NotFound) as error:
            self._index.discard(lease.id)
            self._refuse(self._registry.get(worker).life, terms)
            raise Conflict(f"worker {worker} has just changed; try again") from error
        _log.info("person asks for a worker", worker=worker, lease=lease.id, by=by.name)
        self._start_instances()
        return LeaseResult(changed=True, lease=await self.get(lease.id))

    async def renew(
        self, id: str, *, ttl_s: float | None, reason: str | None, by: Caller, dry_run: bool
    ) -> LeaseResult:
        """Let a granted lease last for ``ttl_s`` seconds from now; None keeps its own ``ttl_s``.

        A lease that is still waited for is waited for no longer than before. Raises NotFound,
        Forbidden, and Conflict for a lease that has ended.
        """
        entry, person = await self._current(id)
        if person.holder != by.name and not by.role.covers(Role.OPERATOR):
            raise Forbidden(f"lease {id} is {person.holder}'s, who renews it, or an operator")
        now = self._clock.now()
        ttl_s = person.ttl_s if ttl_s is None else ttl_s
        until = now + ttl_s if person.granted else person.until
        renewed = events.PersonRenewed(
            at=now,
            lease=id,
            until=until,
            ttl_s=ttl_s,
            reason=person.reason if reason is None else reason,
            by=by.name,
        )
        if dry_run:
            changed = replace(person, until=until, ttl_s=ttl_s, reason=renewed.reason)
            return LeaseResult(changed=True, lease=lease_view(entry, changed))
        await self._controller.handle(entry.life.name, renewed)
        entry, person = await self._current(id)  # it may have ended in this moment
        return LeaseResult(changed=True, lease=lease_view(entry, person))

    async def release(
        self, id: str, *, keep: bool | None, force: bool, by: Caller, dry_run: bool
    ) -> LeaseResult:
        """End a lease that is held or waited for. Does nothing if it has ended already.

        An operator may end another person's lease with ``force``. ``keep`` overrides whether the
        instance goes on; None leaves that as it was asked for. Raises NotFound, Forbidden,
        Conflict.
        """
        try:
            entry, person = await self._current(id)
        except Conflict:
            return LeaseResult(changed=False, lease=await self.get(id))
        mine = person.holder == by.name
        if not mine and not by.role.covers(Role.OPERATOR):
            raise Forbidden(f"lease {id} is {person.holder}'s, who releases it, or an operator")
        if not mine and not force:
            raise Conflict(f"lease {id} is {person.holder}'s; an operator ends it with force")
        if dry_run:
            return LeaseResult(changed=True, lease=lease_view(entry, person))
        cause = "released" if mine else f"ended by {by.name}"
        left = events.PersonLeft(at=self._clock.now(), lease=id, cause=cause, keep=keep)
        await self._controller.handle(entry.life.name, left)
        _log.info("person gives a worker back", worker=entry.life.name, lease=id, by=by.name)
        return LeaseResult(changed=True, lease=await self.get(id))

    async def get(self, id: str) -> LeaseView:
        """One lease, whether it has ended or not. Raises NotFound."""
        entry = self._registry.find(self._index.worker_of(id) or "")
        if entry is not None and entry.life.person is not None and entry.life.person.id == id:
            return lease_view(entry, entry.life.person)
        row = await self._store.read(operator_leases.get, id)
        if row is None:
            raise NotFound(f"there is no lease {id}")
        return past_lease_view(row)

    async def wait(self, id: str, wait_s: float) -> LeaseView:
        """Wait until the lease is granted or ended, for ``wait_s`` seconds at most; return it.

        Raises NotFound.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while True:
                    with self._index.waiting(id) as changed:
                        view = await self.get(id)
                        if view.state != "waiting":
                            return view
                        await changed.wait()
        return await self.get(id)

    async def page(
        self, *, worker: str | None, holder: str | None, ended: bool, limit: int
    ) -> LeaseList:
        """Open leases ordered by worker, or, with ``ended``, ended leases, newest first."""
        if ended:
            rows = await self._store.read(operator_leases.recent, worker, holder, limit)
            return LeaseList(items=[past_lease_view(row) for row in rows])
        held = sorted(set(self._index.workers()))
        entries = [entry for name in held if (entry := self._registry.find(name))]
        views = [lease_view(each, p) for each in entries if (p := each.life.person)]
        wanted = [
            view
            for view in views
            if worker in {None, view.worker} and holder in {None, view.holder}
        ]
        return LeaseList(items=wanted[:limit])

    # --- instances for leases that wait ---------------------------------------------------------

    def _start_instances(self) -> None:
        """Start an instance of each latent worker that a lease waits for."""
        for name in self._index.workers():
            entry = self._registry.find(name)
            if entry is not None and _lacks_instance(entry.life):
                self._tasks.spawn(self._want(name), f"start {name} for a person")

    async def _want(self, worker: str) -> None:
        now = self._clock.now()
        wanted = events.Wanted(
            at=now, instance=new_ulid(int(now * 1000)), cause="a person waits for it"
        )
        with contextlib.suppress(NotFound):
            await self._controller.handle(worker, wanted)

    async def _current(self, id: str) -> tuple[Entry, OperatorLease]:
        """An open lease and its worker's entry.

        Raises NotFound, and Conflict for a lease that has ended.
        """
        view = await self.get(id)
        entry = self._registry.find(view.worker)
        person = None if entry is None else entry.life.person
        if entry is None or person is None or person.id != id:
            raise Conflict(f"lease {id} ended at {view.ended_at}: {view.end_reason}")
        return entry, person

    def _refuse(self, life: Worker, terms: Terms) -> None:
        refusal = why_not_askable(life)
        if refusal is not None:
            raise Conflict(f"worker {life.name} cannot be leased: {refusal}")
        refusal = why_not_grantable(life)
        if refusal is not None and not terms.wait_s:
            raise Conflict(f"worker {life.name} cannot be leased at once: {refusal}")


def _lacks_instance(life: Worker) -> bool:
    waits = life.person is not None and not life.person.granted
    return waits and life.state is State.LATENT and why_no_instance(life) is None
