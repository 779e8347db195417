"""Spares: stopped machines that are kept for their workers' next instances, and which of them are.

A spare is kept while its worker's definition would take it up: the same driver and recipe, and no
newer one beside it. All others are destroyed by reconcile, which must therefore also look where no
definition leads any more: the ledger remembers what was kept until it is seen to be gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hostler_hub.drivers.contract import Driver, Owned
from hostler_hub.store import workers
from hostler_hub.store.engine import Store
from hostler_hub.workers.registry import Registry

# What is not listed for so long after its end is not there; lists lag and lie (P6).
SHOWN_AFTER_S = 3600.0


class Spares:
    """Those of one driver."""

    def __init__(self, name: str, driver: Driver, registry: Registry, store: Store) -> None:
        self._name = name
        self._options = driver.options_model
        self._registry = registry
        self._store = store

    async def former_places(self, places: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Where some may be that ``places`` do not lead to."""
        rows = await self._store.read(workers.kept, self._name)
        if not rows:
            return []
        known = {self._place(options) for options in _different(places)}
        remembered = _different([row["driver_options"] for row in rows])
        return [options for options in remembered if self._place(options) not in known]

    def kept(self, owned: Iterable[Owned]) -> frozenset[str]:
        """The instances whose machines are rightly there: one at most of each worker."""
        newest: dict[str, Owned] = {}
        for each in owned:
            if each.spare and self._is_wanted(each):
                last = newest.get(each.worker)
                if last is None or last.epoch < each.epoch:
                    newest[each.worker] = each
        return frozenset(each.instance for each in newest.values())

    async def note_gone(self, owned: Iterable[Owned], at: float) -> None:
        """All places have answered: what they do not list any more is not there."""
        listed = {each.instance for each in owned}
        rows = await self._store.read(workers.kept, self._name)
        gone = [
            row["id"]
            for row in rows
            if row["id"] not in listed and at - row["ended_at"] > SHOWN_AFTER_S
        ]
        if gone:
            await self._store.write(workers.note_not_kept, gone)

    def _is_wanted(self, spare: Owned) -> bool:
        entry = self._registry.find(spare.worker)
        if entry is None or entry.life.removing or entry.definition.driver != self._name:
            return False
        return self._options.of(entry.definition.driver_options).recipe == spare.spare

    def _place(self, options: Mapping[str, Any]) -> str:
        return self._options.of(options).place


def _different(places: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Thousands of workers have the same options: each of them once."""
    return list({repr(sorted(options.items())): options for options in places}.values())
