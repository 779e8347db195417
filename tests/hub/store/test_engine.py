"""Group commit, isolation of failures, order, and the store's life."""

from __future__ import annotations

import asyncio
import stat
import sys
import threading

import pytest
import sqlalchemy as sa

from hostler_hub.store import meta, tokens
from hostler_hub.store.engine import Store
from hostler_hub.store.errors import RowRefused, StaleRow, StoreClosed, StoreError, StoreReadOnly
from hostler_hub.store.tuning import Tuning

TOKEN = {"role": "viewer", "token_hash": "h", "created_by": "me", "created_at": 1.0}


class Gate:
    """Holds the writer in a transaction, so that whatever is written meanwhile forms a group."""

    def __init__(self, store):
        self._open = threading.Event()
        self._held = store.write(self._hold)

    def _hold(self, c):
        self._open.wait(60)

    async def open(self):
        self._open.set()
        await self._held


def transaction_id(c):
    """What all functions of one group have in common."""
    if c.dialect.name == "postgresql":
        return c.execute(sa.text("SELECT pg_current_xact_id()::text")).scalar_one()
    return c.get_transaction()


def fail_after_writing(c):
    meta.put(c, "bad", "1")
    raise ValueError("on purpose")


def break_a_constraint(c):
    meta.put(c, "worse", "1")
    tokens.insert(c, TOKEN | {"name": "a", "lookup": "2"})


async def test_group_shares_a_commit_and_a_failing_one_spoils_no_other(store):
    await store.write(tokens.insert, TOKEN | {"name": "a", "lookup": "1"})
    gate = Gate(store)
    writes = [
        store.write(meta.put, "first", "1"),
        store.write(transaction_id),
        store.write(fail_after_writing),
        store.write(break_a_constraint),
        store.write(transaction_id),
        store.write(meta.put, "last", "1"),
    ]
    await gate.open()
    first, one, failed, refused, other, last = await asyncio.gather(*writes, return_exceptions=True)
    assert (first, last) == (None, None)
    assert one == other
    assert isinstance(failed, ValueError)
    assert isinstance(refused, RowRefused)
    found = [await store.read(meta.get, key) for key in ("first", "bad", "worse", "last")]
    assert found == ["1", None, None, "1"]


async def test_failing_alone_undoes_what_it_wrote(store):
    with pytest.raises(ValueError, match="on purpose"):
        await store.write(fail_after_writing)
    assert await store.read(meta.get, "bad") is None


async def test_whatever_a_function_raises_the_writer_lives(store):
    gate = Gate(store)
    broken = [store.write(lambda _c: next(iter(()))), store.write(lambda _c: sys.exit(3))]
    good = store.write(meta.put, "key", "value")
    await gate.open()
    stopped, exited, _ = await asyncio.gather(*broken, good, return_exceptions=True)
    assert [type(stopped), type(exited)] == [StoreError, StoreError]
    assert await store.write(meta.get, "key") == "value"


async def test_nobody_hears_before_the_commit_and_readers_see_it_afterwards(store):
    gate = Gate(store)
    written = store.write(meta.put, "key", "value")
    assert await store.read(meta.get, "key") is None
    assert not written.done()
    await gate.open()
    await written
    assert await store.read(meta.get, "key") == "value"


async def test_writes_keep_the_order_of_the_calls_across_groups(database_url):
    seen = []
    async with Store(database_url, tuning=Tuning(batch=3)) as store:
        gate = Gate(store)
        writes = [store.write(lambda _c, number=n: seen.append(number)) for n in range(20)]
        await gate.open()
        await asyncio.gather(*writes)
    assert seen == list(range(20))


async def test_cancelled_wait_does_not_cancel_the_write(store):
    gate = Gate(store)
    store.write(meta.put, "key", "value").cancel()
    await gate.open()
    await store.write(meta.get, "key")
    assert await store.read(meta.get, "key") == "value"


async def test_keyword_arguments_reach_the_function(store):
    await store.write(meta.put, key="key", value="value")
    assert await store.read(meta.get, key="key") == "value"


async def test_reads_cannot_write(store):
    with pytest.raises(StoreReadOnly):
        await store.read(meta.put, "key", "value")


async def test_reads_see_one_snapshot(store):
    await store.write(meta.put, "key", "before")
    looked, changed = threading.Event(), threading.Event()

    def look_twice(c):
        first = meta.get(c, "key")
        looked.set()
        changed.wait(60)
        return first, meta.get(c, "key")

    reading = asyncio.create_task(store.read(look_twice))
    await asyncio.to_thread(looked.wait, 60)
    await store.write(meta.put, "key", "after")
    changed.set()
    assert await reading == ("before", "before")


async def test_broken_statement_is_its_callers_error_and_the_store_goes_on(store):
    with pytest.raises(StoreError, match="no_such_table"):
        await store.write(lambda c: c.execute(sa.text("DELETE FROM no_such_table")))
    await store.write(meta.put, "key", "value")


async def test_close_finishes_what_was_handed_in_and_refuses_the_rest(database_url):
    store = Store(database_url)
    await store.open()
    writes = [store.write(meta.put, f"key{n}", "1") for n in range(50)]
    await store.aclose()
    await asyncio.gather(*writes)
    with pytest.raises(StoreClosed):
        store.write(meta.put, "late", "1")
    with pytest.raises(StoreClosed):
        await store.read(meta.get, "late")


async def test_stale_row_keeps_its_type(store):
    def lose(_c):
        raise StaleRow("worker", "w1", "at revision 1")

    with pytest.raises(StaleRow, match="worker w1"):
        await store.write(lose)


async def test_sqlite_files_are_their_owners_alone(tmp_path):
    """The database holds token hashes (U6)."""
    async with Store(f"sqlite:///{tmp_path}/new/hub.sqlite3", exclusive=True) as store:
        await store.write(meta.put, "key", "value")
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "new").iterdir()}
    assert "hub.sqlite3-wal" in modes
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("url", ["mysql://host/database", "sqlite://", "sqlite:///:memory:"])
def test_other_databases_are_refused(url):
    with pytest.raises(ValueError, match="store"):
        Store(url)
