"""Spares: stopped machines that are kept for their workers' next instances.

A spare is kept while its worker's next instance would use it: the definition has the same driver
and recipe, and the worker has no newer spare. Reconcile destroys all others, so it must also look
at places that no definition leads to any more: the ledger records each machine that was kept until
it is seen to be gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hostler_hub.drivers.contract import Driver, Owned
from hostler_hub.store import workers
from hostler_hub.store.engine import Store
from hostler_hub.workers.registry import Registry

# A machine counts as gone only if it is not listed so many seconds after its instance's end:
# lists lag and lie (P6).
SHOWN_AFTER_S = 3600.0


class Spares:
    """The stopped machines that one driver keeps for its workers' next instances."""

    def __init__(self, name: str, driver: Driver, registry: Registry, store: Store) -> None:
        self._name = name
        self._options = driver.options_model
        self._registry = registry
        self._store = store

    async def former_places(self, places: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The options of places where spares may be left and that ``places`` do not lead to."""
        rows = await self._store.read(workers.kept, self._name)
        if not rows:
            return []
        known = {self._place(options) for options in _different(places)}
        remembered = _different([row["driver_options"] for row in rows])
        return [options for options in remembered if self._place(options) not in known]

    def kept(self, owned: Iterable[Owned]) -> frozenset[str]:
        """The ids of ended instances whose machines are to be kept: at most one per worker."""
        newest: dict[str, Owned] = {}
        for each in owned:
            if each.spare and not each.copy and self._is_wanted(each):
                last = newest.get(each.worker)
                if last is None or last.epoch < each.epoch:
                    newest[each.worker] = each
        return frozenset(each.instance for each in newest.values())

    async def note_gone(self, owned: Iterable[Owned], at: float) -> None:
        """Record that kept machines are gone which are not in ``owned``.

        Called once all places have answered, with everything that they list.
        """
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
    """The distinct options among ``places``: thousands of workers may have the same."""
    return list({repr(sorted(options.items())): options for options in places}.values())
