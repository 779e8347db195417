"""The breakers of the fleet's workers: which starts they pause, and what workers they are about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from hostler_hub.drivers.contract import Driver
from hostler_hub.scheduling.breaker import Breaker
from hostler_hub.scheduling.breakers import Breakers, DomainLimit, Paused, decision, decisions
from hostler_hub.scheduling.failure_domains import Link, links
from hostler_hub.scheduling.planner import Budget, LimitKey
from hostler_hub.scheduling.pool_key import PoolKey, pool_of
from hostler_hub.workers.decisions import Decision, Transition
from hostler_hub.workers.registry import Entry, Origin, Registry


class StartBreakers:
    """Finds the failure domains of workers, and asks and tells their breakers.

    ``allowed`` is always the number of failed starts in a row that the worker's pool allows.
    """

    def __init__(self, registry: Registry, drivers: Mapping[str, Driver]) -> None:
        self._registry = registry
        self._drivers = drivers
        self._breakers = Breakers()
        self._links: dict[str, tuple[Origin, PoolKey, tuple[Link, ...]]] = {}

    def load(self, domain: str, numbers: Mapping[str, Any]) -> None:
        """Restore an open breaker from the numbers of the decision that opened it."""
        self._breakers.load(domain, numbers)

    # --- what they let through --------------------------------------------------------------------

    def budgets(self, now: float) -> Mapping[LimitKey, Budget]:
        """How many starts each open breaker lets through in each lane."""
        return self._breakers.budgets(now)

    def limits_of(self, entry: Entry) -> Sequence[DomainLimit]:
        """The keys of the budgets of open breakers that a start of the worker uses up."""
        return self._breakers.limits(self._links_of(entry)) if self._breakers else ()

    def budgets_of(self, entry: Entry, now: float) -> Sequence[Budget]:
        """The budgets of open breakers that a start of the worker uses up."""
        return self._breakers.budget_of(self._links_of(entry), now) if self._breakers else ()

    # --- what there is to see ---------------------------------------------------------------------

    def paused(self) -> list[tuple[Paused, list[str]]]:
        """The failure domains whose starts are paused, each with the names of its workers.

        A domain that no worker is in any more is forgotten.
        """
        workers: dict[str, list[str]] = {each.domain: [] for each in self._breakers.paused()}
        for entry in self._registry if workers else ():
            for domain in self.paused_domains_of(entry):
                workers[domain].append(entry.life.name)
        for domain in [domain for domain, names in workers.items() if not names]:
            self._breakers.close(domain)
        return [(each, sorted(workers[each.domain])) for each in self._breakers.paused()]

    def paused_domains_of(self, entry: Entry) -> list[str]:
        """The failure domains of the worker whose starts are paused, the narrowest first."""
        if not self._breakers:
            return []
        domains = [link.domain for link in self._links_of(entry)]
        return [domain for domain in domains if self._breakers.is_open(domain)]

    def worst_of(self, pool: PoolKey) -> Paused:
        """The breaker that pauses most of the pool: its own, else one of a domain within it."""
        if self._breakers and not self._breakers.is_open(pool.label):
            for entry in self._registry:
                if pool_of(entry) == pool and (domains := self.paused_domains_of(entry)):
                    return Paused(domains[0], self._breakers.of(domains[0]))
        return Paused(pool.label, self._breakers.of(pool.label))

    # --- what changes them ------------------------------------------------------------------------

    def decisions(self, entry: Entry, transition: Transition, allowed: int) -> Iterator[Decision]:
        """The decisions about breakers that a transition of the worker opens or closes."""
        return decisions(transition, self._changes(entry, transition, allowed), self._breakers)

    def happened(
        self, entry: Entry, transition: Transition, allowed: int, decided: Sequence[Decision]
    ) -> list[Decision]:
        """Note a committed transition of the worker, and the decisions that were committed with it.

        Returns the decisions about breakers that are still to be logged: other workers' starts may
        have ended between the decision and its commit.
        """
        changed = self._changes(entry, transition, allowed)
        return self._breakers.happened(transition, self._links_of(entry), changed, decided)

    def close(self, domain: str, at: float, by: str) -> Decision | None:
        """Let the failure domain's workers be started again, by an operator's order. Returns the
        decision to log, or None if its starts were not paused.
        """
        if not self._breakers.is_open(domain):
            return None
        self._breakers.close(domain)
        return decision(domain, Breaker(), at, f"closed by {by}")

    def forget(self, worker: str) -> None:
        """Forget a worker that is removed."""
        self._links.pop(worker, None)

    # --- internals --------------------------------------------------------------------------------

    def _changes(self, entry: Entry, transition: Transition, allowed: int) -> Mapping[str, Breaker]:
        return self._breakers.changes(transition, self._links_of(entry), allowed)

    def _links_of(self, entry: Entry) -> tuple[Link, ...]:
        """The worker's links to its failure domains: those of its living instance, else those of
        its definition.
        """
        origin, pool = entry.origin, pool_of(entry)
        known = self._links.get(entry.life.name)
        if known is not None and known[0] == origin and known[1] == pool:
            return known[2]
        made = links(entry.life.name, pool, self._domains_of(origin))
        self._links[entry.life.name] = (origin, pool, made)
        return made

    def _domains_of(self, origin: Origin) -> Sequence[str]:
        driver = self._drivers.get(origin.driver)
        if driver is None:
            return ()
        try:
            return driver.options_model.of(origin.options).failure_domains
        except ValidationError:  # of another version of the driver: the start will tell
            return ()
