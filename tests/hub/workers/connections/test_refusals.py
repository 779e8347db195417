"""Attempts to attach that were refused: counted, bounded, kept."""

from __future__ import annotations

import pytest

from hostler_hub.runtime.virtual_clock import VirtualClock
from hostler_hub.store.engine import Store
from hostler_hub.workers.connections import refusals as module
from hostler_hub.workers.connections.refusals import Refusals


async def test_attempts_that_are_alike_are_one_row(database_url: str) -> None:
    clock = VirtualClock(1_000_000_000.0)
    async with Store(database_url, exclusive=True) as store:
        refusals = Refusals(store, clock)
        assert refusals.note("a", "192.0.2.7", "wrong")
        clock.advance(60)
        assert not refusals.note("a", "192.0.2.7", "wrong")
        assert refusals.note("a", "192.0.2.8", "wrong")
        clock.advance(module.NEWS_AFTER_S + 1)
        assert refusals.note("a", "192.0.2.7", "wrong"), "after an hour it is news again"
        await refusals.aclose()
        again = Refusals(store, clock)
        await again.load()
        assert again.page(9) == refusals.page(9)
        first, second = again.page(9)
        assert (first.count, first.first_at) == (3, "2001-09-09T01:46:40.000Z")
        assert (second.client, second.count) == ("192.0.2.8", 1)


async def test_V15_the_rows_are_few_however_many_attempts_there_are(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS", 3)
    clock = VirtualClock(1_000_000_000.0)
    async with Store(database_url, exclusive=True) as store:
        refusals = Refusals(store, clock)
        for name in ("a", "b", "c"):
            refusals.note(name, "", "wrong")
        clock.advance(module.STORE_AFTER_S)
        await refusals._tasks.settle(60)
        for name in ("d", "e", "a\x00\ud800" + "x" * 1000):
            clock.advance(0.1)
            refusals.note(name, "", "wrong")
        await refusals.aclose()
        again = Refusals(store, clock)
        await again.load()
        assert [row.name for row in again.page(9)] == ["a??" + "x" * 97, "e", "d"]
