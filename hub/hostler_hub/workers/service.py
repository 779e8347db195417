"""The use cases on workers: define and remove them, set modes, start and stop instances, read."""

from __future__ import annotations

from collections.abc import Sequence

from hostler_hub.errors import Conflict, InvalidRequest, NotFound
from hostler_hub.lifecycle import Mode, State, Worker, events
from hostler_hub.lifecycle.model import why_not_startable, why_reserved
from hostler_hub.runtime.clock import Clock, instant
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.store import events as event_rows
from hostler_hub.store.engine import Store
from hostler_hub.workers.controller import Controller
from hostler_hub.workers.order_views import (
    ModeResult,
    ModeState,
    RemoveResult,
    StateResult,
)
from hostler_hub.workers.registry import Entry, Registry
from hostler_hub.workers.selection import Select
from hostler_hub.workers.views import (
    EventView,
    WorkerCounts,
    WorkerLookup,
    WorkerPage,
    WorkerView,
    event_view,
    worker_view,
)
from hostler_hub.workers.workload import RunningBuilds, WorkerExplainer

LONGEST_MODE_S = 366 * 24 * 3600.0


class Workers:
    """Shows and changes workers. Each change is one transaction: all of its workers, or none."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        registry: Registry,
        controller: Controller,
        running: RunningBuilds,
        reasons: WorkerExplainer,
    ) -> None:
        self._store = store
        self._clock = clock
        self._registry = registry
        self._controller = controller
        self._running = running
        self._reasons = reasons

    async def remove(
        self, names: Sequence[str], *, force: bool, dry_run: bool, by: str
    ) -> list[RemoveResult]:
        """Remove workers; names that no worker has are reported as absent.

        Raises Conflict, without ``force``, if one runs a build (with it, the build is retried) or
        is leased by a person.
        """
        await self._running.released(names)
        present = [entry for name in _unique(names) if (entry := self._registry.find(name))]
        _refuse_leased(present, force=force)
        busy = [entry.life.name for entry in present if entry.life.leases]
        if busy and not force:
            raise Conflict(
                f"{_list(busy)} runs a build; drain it first, or remove it with force "
                "(its build is then run elsewhere)"
            )
        known = {entry.life.name for entry in present}
        todo = [entry.life.name for entry in present if not entry.life.removing]
        if not dry_run and todo:
            at = self._clock.now()
            await self._controller.handle_many(
                [(name, events.Removed(at=at, by=by)) for name in todo]
            )
        left = {name for name in known if name in self._registry and not dry_run}
        return [
            RemoveResult(
                name=name, changed=name in todo, state="removing" if name in left else "absent"
            )
            for name in _unique(names)
        ]

    # --- orders -------------------------------------------------------------------------------

    def choose(self, names: Sequence[str] | None, select: Select | None) -> list[str]:
        """The workers that a request is about: ``names``, or all that ``select`` fits now."""
        if select is None:
            return list(names or ())
        return sorted(entry.life.name for entry in self._registry if select.fits(entry))

    async def set_mode(
        self,
        names: Sequence[str],
        *,
        mode: str,
        reason: str | None,
        by: str,
        dry_run: bool,
        until: float | None = None,
    ) -> list[ModeResult]:
        """Set the workers' mode, until an instant (Unix time) or for good.

        Mode ``active`` ends a quarantine too, and lets workers be started again whose starts were
        paused after failures. Raises NotFound, InvalidRequest.
        """
        wanted, at = Mode(mode), self._clock.now()
        if until is not None:
            _refuse_end(wanted, until - at)
        order = events.ModeSet(at=at, mode=wanted, reason=reason, by=by, until=until)
        results = [
            _mode_result(entry, order, paused=self._reasons.starts_paused(entry))
            for entry in self._all(names)
        ]
        todo = [result.name for result in results if result.changed]
        if todo and not dry_run:
            await self._controller.handle_many([(name, order) for name in todo])
        return results

    async def substantiate(
        self, names: Sequence[str], *, by: str, dry_run: bool
    ) -> list[StateResult]:
        """Start an instance of each worker that has none.

        Raises NotFound, and Conflict if one cannot be started now, for a mode or a quarantine, say:
        then none is.
        """
        entries = self._all(names)
        todo = [entry for entry in entries if entry.life.state is not State.SUBSTANTIATED]
        todo = [entry for entry in todo if entry.life.state is not State.SUBSTANTIATING]
        for entry in todo:
            refusal = why_not_startable(entry.life)
            if refusal is not None:
                raise Conflict(
                    f"worker {entry.life.name} cannot be substantiated: {refusal}"
                    + _remedy(entry.life)
                )
        if not dry_run:
            now = self._clock.now()
            wants = [
                (
                    entry.life.name,
                    events.Wanted(
                        at=now, instance=new_ulid(int(now * 1000)), cause=f"order by {by}"
                    ),
                )
                for entry in todo
            ]
            await self._controller.handle_many(wants)
        return _states(entries, todo)

    async def insubstantiate(
        self, names: Sequence[str], *, by: str, dry_run: bool
    ) -> list[StateResult]:
        """Stop the workers' instances.

        Raises NotFound, and Conflict if one is leased, runs a build or is permanent: then none is
        stopped.
        """
        entries = self._all(names)
        await self._running.released(names)
        _refuse_leased(entries, force=False)
        busy = [entry.life.name for entry in entries if entry.life.leases]
        if busy:
            raise Conflict(
                f"{_list(busy)} runs a build; set mode draining (waits for it) or stopped (gives "
                "it to another worker)"
            )
        up = {State.SUBSTANTIATING, State.SUBSTANTIATED}
        todo = [entry for entry in entries if entry.life.state in up]
        permanent = [entry.life.name for entry in todo if entry.life.policy.permanent]
        if permanent:
            raise Conflict(f"{_list(permanent)} is permanent: its owner starts and stops it")
        if not dry_run:
            order = events.Unwanted(at=self._clock.now(), cause=f"order by {by}")
            await self._controller.handle_many([(entry.life.name, order) for entry in todo])
        return _states(entries, todo)

    # --- views --------------------------------------------------------------------------------

    def view(self, name: str) -> WorkerView:
        """One worker. Raises NotFound."""
        entry = self._registry.get(name)
        why = self._reasons.of_worker(entry, self._clock.now())
        builds = self._running.builds_on(name)
        exposes_hub = self._controller.is_hub_exposed(entry)
        return worker_view(entry, builds, why, exposes_hub=exposes_hub)

    def query(self, names: Sequence[str]) -> WorkerLookup:
        """The workers of these names, and the names that no worker has."""
        known = [name for name in names if name in self._registry]
        unknown = [name for name in names if name not in self._registry]
        return WorkerLookup(items=[self.view(name) for name in known], unknown=unknown)

    def page(
        self,
        *,
        names: Sequence[str] | None,
        state: str | None,
        mode: str | None,
        driver: str | None,
        label: str | None,
        missing: bool | None,
        limit: int,
        after: str | None,
    ) -> WorkerPage:
        """The workers that meet every condition given, by name, at most ``limit``.

        ``next`` is the ``after`` of the next page, or None.
        """
        wanted = set(names) if names else None
        found = sorted(
            entry.life.name
            for entry in self._registry
            if (wanted is None or entry.life.name in wanted)
            and state in {None, entry.life.state.value}
            and mode in {None, entry.life.mode.value}
            and driver in {None, entry.definition.driver}
            and (label is None or label in entry.definition.labels)
            and (missing is None or missing == (entry.life.missing_since is not None))
            and (after is None or entry.life.name > after)
        )
        items = [self.view(name) for name in found[:limit]]
        return WorkerPage(items=items, next=found[limit - 1] if len(found) > limit else None)

    async def events(self, name: str, limit: int) -> list[EventView]:
        """A worker's latest transitions, newest first. Raises NotFound."""
        self._registry.get(name)
        rows = await self._store.read(event_rows.recent, name, limit)
        return [event_view(row) for row in rows]

    def counts(self) -> WorkerCounts:
        """Count the workers by state, by mode, and by what people should know of them."""
        lives = [entry.life for entry in self._registry]
        return WorkerCounts(
            total=len(lives),
            by_state={s: sum(life.state is s for life in lives) for s in State},
            by_mode={m: sum(life.mode is m for life in lives) for m in Mode},
            attached=sum(life.attached for life in lives),
            missing=sum(life.missing_since is not None for life in lives),
            quarantined=sum(life.quarantine_until is not None for life in lives),
            exposing_hub=sum(map(self._controller.is_hub_exposed, self._registry)),
        )

    def _all(self, names: Sequence[str]) -> list[Entry]:
        unknown = [name for name in names if name not in self._registry]
        if unknown:
            raise NotFound(f"there is no worker {_list(unknown)}", pointer="/names")
        return [self._registry.get(name) for name in _unique(names)]


def _unique(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _refuse_leased(entries: Sequence[Entry], *, force: bool) -> None:
    """V9: raise Conflict if a worker in use is leased by a person, or one waits for it.

    Only mode stopped, or ``force``, stops it.
    """
    for entry in entries:
        leased = why_reserved(entry.life)
        if leased is not None and entry.life.in_use and not force:
            raise Conflict(f"worker {entry.life.name} cannot be stopped: {leased}")


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _refuse_end(wanted: Mode, left_s: float) -> None:
    if wanted is Mode.ACTIVE:
        raise InvalidRequest("active is what a mode ends in: it has no end", pointer="/until")
    if not 0 < left_s <= LONGEST_MODE_S:
        raise InvalidRequest("the end of a mode lies ahead, within a year", pointer="/until")


def _mode_result(entry: Entry, order: events.ModeSet, *, paused: bool) -> ModeResult:
    life = entry.life
    before = _order_view(life.mode, life.mode_reason, life.mode_until)
    after = _order_view(order.mode, order.reason, order.until)
    active = life.mode is order.mode is Mode.ACTIVE
    same = active or before == after
    resumes = order.mode is Mode.ACTIVE and (paused or life.quarantine_until is not None)
    return ModeResult(
        name=life.name,
        changed=not same or resumes,
        before=before,
        after=before if same else after,
    )


def _order_view(mode: Mode, reason: str | None, until: float | None) -> ModeState:
    return ModeState(mode=mode, reason=reason, until=instant(until))


def _remedy(life: Worker) -> str:
    if life.mode is not Mode.ACTIVE or life.quarantine_until is not None:
        return " (resume it first: mode active)"
    return ""


def _states(entries: Sequence[Entry], todo: Sequence[Entry]) -> list[StateResult]:
    changed = {entry.life.name for entry in todo}
    return [
        StateResult(
            name=entry.life.name,
            changed=entry.life.name in changed,
            state=entry.life.state,
        )
        for entry in entries
    ]
