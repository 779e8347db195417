"""The store's health: an outage is told once, whatever its many failures say."""

from __future__ import annotations

import structlog

from hostler_hub.store.errors import StoreBusy, StoreFull, StoreUnavailable
from hostler_hub.store.health import Health, Use


def test_one_line_when_it_begins_when_its_reason_changes_and_when_it_is_over() -> None:
    health, begun = Health(), []
    health.listen(lambda: begun.append(health.trouble))
    with structlog.testing.capture_logs() as logs:
        for _ in range(100):
            health.failed(Use.WRITE, StoreBusy("locked"))
        health.failed(Use.READ, StoreBusy("locked"))  # the same to whoever reads the log
        for _ in range(100):
            health.failed(Use.WRITE, StoreFull("/disk is full"))
        health.recovered(Use.READ)
        health.recovered(Use.WRITE)
        health.recovered(Use.WRITE)
    assert [(each["event"], each.get("reason")) for each in logs] == [
        ("database unavailable", "locked"),
        ("database unavailable", "/disk is full"),
        ("database available again", None),
    ]
    assert len(begun) == 1


def test_who_reads_is_not_told_of_a_disk_that_is_full() -> None:
    health = Health()
    health.failed(Use.WRITE, StoreFull("full"))
    assert (health.is_failing(Use.READ), health.is_failing(Use.WRITE)) == (False, True)
    health.failed(Use.READ, StoreUnavailable("host 10.0.0.5 refused user hub"))
    assert health.trouble is not None
    assert health.trouble.reason == "there is no space left for the database"
    health.recovered(Use.WRITE)
    assert health.trouble is not None
    assert health.trouble.reason == "the database does not answer"  # no host, no user
