"""Which worker an operators' lease is on, for as long as it has not ended."""

from __future__ import annotations

from hostler_hub.lifecycle import OperatorLease, commands
from hostler_hub.workers.lease_index import LeaseIndex

LEASE = OperatorLease(id="L", holder="ann", asked_at=0.0, until=60.0, ttl_s=60.0)


def test_a_lease_is_known_until_it_ends() -> None:
    index = LeaseIndex()
    index.add("L", "w")
    with index.waiting("L") as changed:
        index.changed(commands.TellPerson(LEASE))
        assert changed.is_set()
    assert (index.worker_of("L"), index.workers()) == ("w", ["w"])
    with index.waiting("L") as changed:
        index.changed(commands.TellPerson(LEASE, "expired"))
        assert changed.is_set()
    assert (index.worker_of("L"), index.workers()) == (None, [])


def test_who_waits_for_another_lease_is_not_woken() -> None:
    index = LeaseIndex()
    with index.waiting("M") as changed:
        index.changed(commands.TellPerson(LEASE))
        assert not changed.is_set()
