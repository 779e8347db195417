"""The failure domains of a worker's starts: what can fail for several workers at once. Pure.

The driver's options name them, the narrowest first (``DriverOptions.failure_domains``): the image
on a daemon, the daemon. The widest is always the worker's pool: its group, or its driver.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hostler_hub.scheduling.breaker import Breaker, Lane
from hostler_hub.scheduling.pool_key import PoolKey


@dataclass(frozen=True, slots=True)
class Link:
    """A worker's place in one failure domain.

    ``domain`` names it, for people and as its key. ``member`` is what the domain counts failures
    of here: the worker itself if ``alike``, as its workers differ in nothing that matters there,
    else the narrowest domain of the worker.
    """

    domain: str
    member: str
    alike: bool

    def lane(self, breaker: Breaker, proven: bool) -> Lane:
        """On what terms the breaker of the domain lets the worker start. ``proven``: the member's
        last start succeeded.
        """
        if self.alike or self.member in breaker.failed_members:
            return Lane.PROBE
        return Lane.PROVEN if proven else Lane.UNTRIED


def links(worker: str, pool: PoolKey, domains: Sequence[str]) -> tuple[Link, ...]:
    """The worker's links, the narrowest domain first. ``domains``: those that its driver names.

    Workers at the same place in one group are counted by themselves, since a group has settings of
    its own that may be what fails.
    """
    if not domains:
        return (Link(pool.label, worker, alike=True),)
    site = f"{domains[0]} in {pool.title}" if pool.is_group else domains[0]
    wider = domains if pool.is_group else domains[1:]
    outer = [Link(domain, site, alike=False) for domain in (*wider, pool.label)]
    return (Link(site, worker, alike=True), *outer)
