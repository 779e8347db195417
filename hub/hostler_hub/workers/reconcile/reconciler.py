"""Compares the ledger with what providers list, and settles the difference (V2, V17).

Theory of operation. A pass asks every driver for all that carries this hub's mark and compares it
with the workers' instances (``diff``). Orphans are destroyed, after their evidence is gathered, in
each pass until a list no longer has them. A worker whose instance is proven absent gets the event
that an inspection by its driver would have led to. The hub makes a pass at its start and then
regularly; an operator may ask for one, as a dry run or with a confirmation for what is held. A
place that does not answer is reported, and nothing is concluded about its instances; what the
other places listed is dealt with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from hostler_hub.drivers.contract import Driver, InstanceRef, Owned
from hostler_hub.errors import Conflict
from hostler_hub.lifecycle import State, events
from hostler_hub.lifecycle.model import Presence
from hostler_hub.runtime.clock import Clock
from hostler_hub.store import workers
from hostler_hub.store.engine import Store
from hostler_hub.store.errors import StoreError, StoreUnavailable
from hostler_hub.workers.controller import Controller
from hostler_hub.workers.evidence import Evidence
from hostler_hub.workers.hold import Hold
from hostler_hub.workers.reconcile import answers, diff
from hostler_hub.workers.reconcile.answers import Answer, reason_of
from hostler_hub.workers.reconcile.diff import Action, DriftKind, Expected, Finding, Seen
from hostler_hub.workers.reconcile.report import Checked, FindingOutcome, Report, Unanswered
from hostler_hub.workers.reconcile.spares import Spares
from hostler_hub.workers.reconcile.views import Forgotten
from hostler_hub.workers.registry import Entry, Registry

_log = structlog.get_logger(__name__)

_AT_ONCE = 8


class Reconciler:
    """Makes passes over the drivers, one pass at a time."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        registry: Registry,
        controller: Controller,
        drivers: Mapping[str, Driver],
        interval_s: float,
        hold: Hold,
    ) -> None:
        self._store = store
        self._clock = clock
        self._registry = registry
        self._controller = controller
        self._drivers = {
            name: driver for name, driver in drivers.items() if not driver.capabilities.permanent
        }
        self._interval_s = interval_s
        self._hold = hold
        self._evidence = Evidence(store, clock)
        self._since: dict[str, dict[str, float]] = {}
        self._passing = asyncio.Lock()

    @property
    def drivers(self) -> Collection[str]:
        """The names of the drivers whose instances can leak."""
        return self._drivers.keys()

    async def run(self) -> None:
        """Make a pass at once and another ``interval_s`` seconds after each, until cancelled."""
        while True:
            try:
                report = await self.settle()
                _note(report)
            except StoreUnavailable as error:
                _log.debug("reconcile waits for the store", reason=str(error))
            except Exception as error:  # noqa: BLE001 - one bad pass must not end reconciling
                _log.error("reconcile failed", exc_info=error)
            await self._nap()

    async def _nap(self) -> None:
        rested = asyncio.Event()
        timer = self._clock.call_after(self._interval_s, rested.set)
        try:
            await rested.wait()
        finally:
            timer.cancel()

    async def settle(
        self,
        *,
        drivers: Collection[str] | None = None,
        dry_run: bool = False,
        confirmed: bool = False,
    ) -> Report:
        """Make one pass over these drivers, or all, and return its report.

        ``dry_run``: only report what would be done. ``confirmed``: carry out what is held, too;
        while the hub is in hold only lift_hold() lets anything be ended.
        """
        async with self._passing:
            report = Report(self._clock.now(), hold=self._hold.reason)
            passes = [
                self._guarded_pass(name, driver, report, dry_run=dry_run, confirmed=confirmed)
                for name, driver in self._drivers.items()
                if drivers is None or name in drivers
            ]
            # A slow provider holds up no other. A pass raises only for want of the store.
            for failed in await asyncio.gather(*passes, return_exceptions=True):
                if failed is not None:
                    raise failed
            return report

    async def lift_hold(self, by: str) -> None:
        """End the hub's hold on an operator's word. Does nothing if it is in none."""
        if self._hold.reason is not None:
            _log.warning("hold lifted", by=by)
            await self._controller.lift_hold(by)

    async def _guarded_pass(
        self, name: str, driver: Driver, report: Report, *, dry_run: bool, confirmed: bool
    ) -> None:
        try:
            await self._pass(name, driver, report, dry_run=dry_run, confirmed=confirmed)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of one driver must not stop the others
            report.unanswered.append(Unanswered(name, "", reason_of(name, error)))

    async def _pass(
        self, name: str, driver: Driver, report: Report, *, dry_run: bool, confirmed: bool
    ) -> None:
        seen = await self._look(name, driver, report)
        if seen is None:
            return
        since = self._since.get(name, {})
        findings = diff.compare(seen, since, confirmed=confirmed, hold=self._hold.reason)
        self._since[name] = diff.still_waiting(findings, since, seen.at)
        report.checked[name] = Checked(len(seen.owned), len(seen.expected), len(seen.kept))
        if dry_run:
            report.outcomes += [FindingOutcome(name, finding) for finding in findings]
            return
        turns = asyncio.Semaphore(_AT_ONCE)
        acts = [self._act(name, driver, finding, turns) for finding in findings]
        report.outcomes += await asyncio.gather(*acts)

    async def forget(
        self, names: Sequence[str], *, reason: str, by: str, dry_run: bool
    ) -> list[Forgotten]:
        """Record, on a person's word, that instances whose destroy keeps failing are gone (P13).

        Raises NotFound, and Conflict for an instance that can still be stopped the usual way.
        """
        entries = [self._registry.get(name) for name in dict.fromkeys(names)]
        todo = [entry for entry in entries if entry.life.instance is not None]
        for entry in todo:
            _refuse_unstuck(entry)
        if not dry_run:
            at, cause = self._clock.now(), f"forgotten by {by}: {reason}"
            await self._controller.handle_many(
                [
                    (entry.life.name, events.Forgotten(at=at, instance=instance.id, cause=cause))
                    for entry in todo
                    if (instance := entry.life.instance) is not None
                ]
            )
        return [Forgotten(name=entry.life.name, changed=entry in todo) for entry in entries]

    # --- looking ------------------------------------------------------------------------------

    async def _look(self, name: str, driver: Driver, report: Report) -> Seen | None:
        before = self._living(name)
        spares = Spares(name, driver, self._registry, self._store)
        at = self._clock.now()
        answer = await answers.ask(name, driver, self._places(name, driver))
        report.unanswered += answer.unanswered
        if answer.is_none:
            return None
        owned = [*answer.owned, *await self._look_back(name, driver, report, spares, answer)]
        # An instance that came or went while the driver listed is left to the next pass.
        now = self._living(name)
        coming = now.keys() - before.keys()
        expected = [
            _expected(entry, unlisted=answer.hides(driver, self._options_of(driver, entry)))
            for instance, entry in now.items()
            if instance in before
        ]
        listed = [each for each in owned if each.instance not in coming]
        foreign = [each.instance for each in listed if each.instance not in now]
        # A machine that several drivers use may list the instances of another.
        others = await self._store.read(workers.of_other_drivers, foreign, name)
        listed = [each for each in listed if each.instance not in others]
        ended = await self._store.read(workers.ended_at, foreign)
        return Seen(at, listed, expected, ended, spares.kept(listed))

    async def _look_back(
        self, name: str, driver: Driver, report: Report, spares: Spares, answer: Answer
    ) -> Sequence[Owned]:
        """The instances at places that no definition leads to any more but where spares were kept.

        Without those in ``answer``. If such a place does not answer (its credentials may have been
        revoked), that is reported, and the pass goes on with the other places.
        """
        former = await spares.former_places(self._places(name, driver))
        left = await answers.ask(name, driver, former) if former else Answer([])
        report.unanswered += [
            replace(each, reason=f"where machines were kept before: {each.reason}")
            for each in left.unanswered
        ]
        if not (answer.unanswered or left.unanswered):
            await spares.note_gone([*answer.owned, *left.owned], report.at)
        known = {each.name for each in answer.owned}
        return [each for each in left.owned if each.name not in known]

    def _living(self, driver: str) -> dict[str, Entry]:
        return {
            entry.life.instance.id: entry
            for entry in self._registry
            if entry.life.instance is not None and entry.origin.driver == driver
        }

    def _places(self, name: str, driver: Driver) -> Sequence[Mapping[str, Any]]:
        places = [
            entry.definition.driver_options
            for entry in self._registry
            if entry.definition.driver == name
        ]
        living = self._living(name).values()
        return places + [self._options_of(driver, entry) for entry in living]

    def _options_of(self, driver: Driver, entry: Entry) -> Mapping[str, Any]:
        """The options by which the entry's instance is reached today; see `in_force`."""
        same = entry.definition.driver == entry.origin.driver
        present = entry.definition.driver_options if same else None
        return driver.options_model.in_force(present, entry.origin.options)

    # --- settling -----------------------------------------------------------------------------

    async def _act(
        self, name: str, driver: Driver, finding: Finding, turns: asyncio.Semaphore
    ) -> FindingOutcome:
        if finding.action in {Action.WAIT, Action.HOLD, Action.REPORT}:
            return FindingOutcome(name, finding)
        if finding.action is Action.DESTROY:
            async with turns:
                return await self._destroy(name, driver, finding)
        presence, handle = Presence.GONE, None
        if finding.action is Action.ADOPT and finding.owned is not None:
            presence, handle = Presence.RUNNING, finding.owned.handle
        event = events.Inspected(
            at=self._clock.now(),
            instance=finding.instance,
            presence=presence,
            evidence=finding.reason,
            handle=handle,
        )
        await self._controller.handle(finding.worker, event)
        return FindingOutcome(name, finding, done=True)

    async def _destroy(self, name: str, driver: Driver, finding: Finding) -> FindingOutcome:
        owned = finding.owned
        assert owned is not None
        options = await self._options(name, driver, owned)
        ref = InstanceRef(owned.worker, owned.instance, owned.epoch, owned.handle, options)
        await self._evidence.gather(driver, ref, f"{finding.kind}: {finding.reason}")
        try:
            async with asyncio.timeout(driver.capabilities.destroy_deadline_s):
                await driver.destroy(ref)
        except Exception as error:  # noqa: BLE001 - a driver may be anybody's code
            return FindingOutcome(name, finding, error=reason_of(name, error))
        return FindingOutcome(name, finding, done=True)

    async def _options(self, name: str, driver: Driver, owned: Owned) -> Mapping[str, Any]:
        """The options to destroy an orphan with.

        Those in the ledger, which it was started with. The definition's instead, if they lead to
        the same place (they may name newer credentials), or if the ledger has none.
        """
        entry = self._registry.find(owned.worker)
        present = None
        if entry is not None and entry.definition.driver == name:
            present = entry.definition.driver_options
        row = await self._store.read(workers.instance, owned.instance)
        if row is None or row["driver_options"] is None:
            return present or {}
        return driver.options_model.in_force(present, row["driver_options"])


def _expected(entry: Entry, *, unlisted: bool) -> Expected:
    life = entry.life
    assert life.instance is not None
    return Expected(
        worker=life.name,
        instance=life.instance.id,
        epoch=life.instance.epoch,
        settled=life.state is not State.INSUBSTANTIATING and not entry.driver_lock.locked(),
        attached=life.attached,
        has_handle=life.instance.handle is not None,
        unlisted=unlisted,
    )


def _refuse_unstuck(entry: Entry) -> None:
    life = entry.life
    if life.state is not State.INSUBSTANTIATING or not life.destroy_attempts:
        raise Conflict(
            f"worker {life.name} is {life.state} and its instance can still be stopped the usual "
            "way; only one whose destroy has failed is forgotten"
        )


def _note(report: Report) -> None:
    for silent in report.unanswered:
        _log.warning(
            "provider not reconciled",
            driver=silent.driver,
            place=silent.place,
            reason=silent.reason,
        )
    for each in report.outcomes:
        level = _log.info if each.finding.kind is DriftKind.UNRECORDED else _log.warning
        level(
            "instance differs from the ledger",
            driver=each.driver,
            instance=each.finding.instance,
            kind=each.finding.kind.value,
            action=each.finding.action.value,
            reason=each.finding.reason,
            error=each.error,
        )
