"""Outages of the database, and of the hub: D1, D2, D3, D4, K1, P18."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
import sqlalchemy as sa

from hostler_hub.lifecycle.backoff import Backoff
from hostler_hub.store import meta
from hostler_hub.store.engine import Store
from hostler_hub.store.errors import StoreBusy, StoreFull, StoreHeld, StoreUnavailable
from hostler_hub.store.tuning import Tuning

QUICK = Tuning(busy_timeout_s=0.01, patience_s=60, retry=Backoff(0.001, 0.01))

WRITER = """
import asyncio, sys
from hostler_hub.store import meta
from hostler_hub.store.engine import Store

async def main():
    async with Store(sys.argv[1], exclusive=True) as store:
        async def write(worker):
            number = 0
            while True:
                await store.write(meta.put, f"{worker}.{number}", "kept")
                print(f"{worker}.{number}", flush=True)
                number += 1
        await asyncio.gather(*(write(worker) for worker in range(8)))

asyncio.run(main())
"""

HOLDER = """
import asyncio, sys
from hostler_hub.store.engine import Store

async def main():
    async with Store(sys.argv[1], exclusive=True):
        print("Ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""

LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
connection.execute("INSERT INTO meta VALUES ('theirs', '1')")
print("Ready", flush=True)
sys.stdin.read()
connection.execute("COMMIT")
"""


@contextlib.contextmanager
def child(program, argument):
    command = [sys.executable, "-c", program, argument]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


class Troubles(list):
    """Collects what the store complains of; `enough` is set at the third."""

    def __init__(self):
        super().__init__()
        self.enough = threading.Event()

    def __call__(self, error):
        self.append(error)
        if len(self) >= 3:
            self.enough.set()


async def test_k1_acknowledged_writes_survive_kill_9(database_url):
    with child(WRITER, database_url) as process:
        acknowledged = [process.stdout.readline().strip() for _ in range(200)]
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += process.stdout.read().split()
    async with Store(database_url) as store:
        found = [await store.read(meta.get, key) for key in acknowledged]
    assert found == ["kept"] * len(acknowledged)


async def test_d1_write_waits_for_another_processes_lock(tmp_path, sqlite_template):
    path = tmp_path / "hub.sqlite3"
    path.write_bytes(sqlite_template.read_bytes())
    troubles = Troubles()
    async with Store(f"sqlite:///{path}", tuning=QUICK, on_trouble=troubles) as store:
        await store.write(meta.put, "before", "1")
        with child(LOCKER, str(path)) as locker:
            assert locker.stdout.readline() == "Ready\n"
            writing = [store.write(meta.put, f"ours{n}", "1") for n in range(3)]
            assert await asyncio.to_thread(troubles.enough.wait, 60)
            assert not any(write.done() for write in writing)
            assert await store.read(meta.get, "before") == "1"  # readers never wait
            locker.stdin.close()
            await asyncio.gather(*writing)
        assert await store.read(meta.get, "theirs") == "1"
        assert await store.read(meta.get, "ours2") == "1"
    assert all(isinstance(trouble, StoreBusy) for trouble in troubles)


async def test_d1_patience_ends_in_a_typed_error(tmp_path, sqlite_template):
    path = tmp_path / "hub.sqlite3"
    path.write_bytes(sqlite_template.read_bytes())
    tuning = Tuning(busy_timeout_s=0.01, patience_s=0.0)
    async with Store(f"sqlite:///{path}", tuning=tuning) as store:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreBusy, match="locked by another process"):
                await store.write(meta.put, "key", "1")
            other.execute("ROLLBACK")
        await store.write(meta.put, "key", "2")
        assert await store.read(meta.get, "key") == "2"


async def test_d2_full_disk_refuses_at_once_and_recovers(tmp_path, sqlite_template):
    path = tmp_path / "hub.sqlite3"
    path.write_bytes(sqlite_template.read_bytes())

    def limit(c, pages):
        return c.exec_driver_sql(f"PRAGMA max_page_count={pages}").scalar_one()

    async with Store(f"sqlite:///{path}", tuning=QUICK) as store:
        await store.write(limit, 1)  # SQLite's own "disk": no page beyond those in use
        with pytest.raises(StoreFull, match="no space"):
            await store.write(meta.put, "big", "x" * 1_000_000)
        await store.write(limit, 100_000)
        await store.write(meta.put, "big", "x" * 1_000_000)


@pytest.mark.peer("postgresql")
async def test_d3_sessions_ended_by_an_administrator(postgresql_cluster, postgresql_template):
    """Writes go on through it, each exactly once, also when it happens inside a transaction."""
    database = postgresql_cluster.create(postgresql_template)
    ran = []

    def add(c, by):
        total = int(meta.get(c, "total") or 0) + by
        meta.put(c, "total", str(total))
        if len(ran) in (3, 10, 20):
            postgresql_cluster.end_sessions(database)
        ran.append(by)

    url = postgresql_cluster.url(database)
    troubles = Troubles()
    async with Store(url, exclusive=True, tuning=QUICK, on_trouble=troubles) as store:
        for _ in range(5):
            await asyncio.gather(*(store.write(add, 1) for _ in range(5)))
            await store.read(meta.get, "total")
        assert await store.read(meta.get, "total") == "25"
    assert len(ran) > 25  # it did happen
    assert len(troubles) >= 3
    postgresql_cluster.drop(database)


@pytest.mark.peer("postgresql")
async def test_d3_server_crashes_and_comes_back():
    from peers import postgresql

    with postgresql.cluster() as cluster:
        troubles = Troubles()
        store = Store(cluster.url(), exclusive=True, tuning=QUICK, on_trouble=troubles)
        async with store:
            await store.write(meta.put, "before", "1")
            await asyncio.to_thread(cluster.stop, signal.SIGQUIT)
            writing = store.write(meta.put, "during", "1")
            reading = asyncio.create_task(store.read(meta.get, "before"))
            assert await asyncio.to_thread(troubles.enough.wait, 60)
            await asyncio.to_thread(cluster.start)
            await writing
            assert await reading == "1"
            assert await store.read(meta.get, "during") == "1"


class CutAtCommit:
    """Ends the writer's session just before or just after its COMMIT, answer unheard (D4)."""

    def __init__(self, store, *, after):
        self._after = after
        self.cuts = 0
        engine = store._writer._engine
        sa.event.listen(engine, "commit", self._commit)

    def _commit(self, connection):
        if self.cuts:
            return
        self.cuts += 1
        driver = connection.connection.driver_connection
        if self._after:
            driver.pgconn.exec_(b"COMMIT")
        driver.pgconn.finish()


@pytest.mark.peer("postgresql")
@pytest.mark.parametrize("after", [False, True], ids=["not-committed", "committed"])
async def test_d4_commit_of_unknown_outcome_takes_place_once(
    postgresql_cluster, postgresql_template, after
):
    database = postgresql_cluster.create(postgresql_template)
    runs = []

    def add_one(c):
        runs.append(1)
        total = int(meta.get(c, "total") or 0) + 1
        meta.put(c, "total", str(total))
        return total

    async with Store(postgresql_cluster.url(database), exclusive=True, tuning=QUICK) as store:
        cut = CutAtCommit(store, after=after)
        assert await store.write(add_one) == 1
        assert await store.read(meta.get, "total") == "1"
    assert cut.cuts == 1
    assert len(runs) == (1 if after else 2)
    postgresql_cluster.drop(database)


@pytest.mark.peer("postgresql")
async def test_d4_outcome_that_stays_unknown_is_told_and_not_taken_for_the_nexts(
    postgresql_cluster, postgresql_template
):
    database = postgresql_cluster.create(postgresql_template)
    impatient = Tuning(patience_s=0.0)
    async with Store(postgresql_cluster.url(database), tuning=impatient) as store:
        CutAtCommit(store, after=True)
        with pytest.raises(StoreUnavailable, match="outcome of a commit is unknown"):
            await store.write(meta.put, "first", "1")
        assert await store.write(meta.get, "first") == "1"
    postgresql_cluster.drop(database)


def await_waiting(cluster, database):
    """Until a session of the database waits for another's lock."""
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
    deadline = time.monotonic() + 60
    with cluster.connect() as onlooker:
        while onlooker.execute(waiting, [database]).fetchone() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.peer("postgresql")
async def test_deadlock_victims_run_again(postgresql_cluster, postgresql_template):
    database = postgresql_cluster.create(postgresql_template)
    troubles = Troubles()
    url = postgresql_cluster.url(database)
    async with Store(url, tuning=QUICK, on_trouble=troubles) as store:
        await store.write(meta.put, "a", "0")
        await store.write(meta.put, "b", "0")
        locked = threading.Event()

        def lock_both(c):
            meta.put(c, "a", "ours")
            locked.set()
            theirs_waits.wait(60)
            meta.put(c, "b", "ours")

        theirs_waits = threading.Event()
        with postgresql_cluster.connect(database) as other:
            other.execute("SET deadlock_timeout = '1h'")  # so that ours is the victim
            other.execute("BEGIN")
            other.execute("UPDATE meta SET value = 'theirs' WHERE key = 'b'")
            writing = store.write(lock_both)
            assert await asyncio.to_thread(locked.wait, 60)
            blocked = asyncio.to_thread(
                other.execute, "UPDATE meta SET value = 'theirs' WHERE key = 'a'"
            )
            task = asyncio.create_task(blocked)
            # Ours looks for a deadlock once, a second after it has begun to wait.
            await asyncio.to_thread(await_waiting, postgresql_cluster, database)
            theirs_waits.set()
            await task
            other.execute("COMMIT")
            await writing
        assert await store.read(meta.get, "b") == "ours"
    assert any(isinstance(trouble, StoreBusy) for trouble in troubles)
    postgresql_cluster.drop(database)


async def test_p18_second_hub_is_refused_by_name(database_url):
    with child(HOLDER, database_url) as holder:
        assert holder.stdout.readline() == "Ready\n"
        with pytest.raises(StoreHeld, match=str(holder.pid)):
            async with Store(database_url, exclusive=True):
                pass
        async with Store(database_url) as tool:  # a command-line tool beside the hub
            await tool.write(meta.put, "key", "1")
        holder.kill()
        holder.wait()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(Store(database_url, exclusive=True, tuning=QUICK))


@pytest.mark.peer("postgresql")
async def test_p18_hub_that_lost_its_lock_writes_no_more(postgresql_cluster, postgresql_template):
    """The lock lives on the writer's own session: whoever cannot hold it cannot write."""
    database = postgresql_cluster.create(postgresql_template)
    url = postgresql_cluster.url(database)
    async with Store(url, exclusive=True, tuning=QUICK) as store:
        await store.write(meta.put, "key", "ours")
        rival = Rival(postgresql_cluster, database)
        await asyncio.to_thread(rival.take_over)
        with pytest.raises(StoreHeld, match="rival"):
            await store.write(meta.put, "key", "too late")
        assert await store.read(meta.get, "key") == "ours"
        rival.close()
    postgresql_cluster.drop(database)


class Rival:
    """Another hub's session that wins the lock after an administrator ended ours."""

    def __init__(self, cluster, database):
        self._cluster = cluster
        self._database = database

    def take_over(self):
        from hostler_hub.store.lock import _KEY

        self._cluster.end_sessions(self._database)
        self._session = self._cluster.connect(self._database)
        self._session.execute("SET application_name = 'rival'")
        self._session.execute("SELECT pg_advisory_lock(%s)", [_KEY])

    def close(self):
        self._session.close()


@pytest.mark.peer("postgresql")
async def test_unreachable_server_is_an_outage_not_a_bug(tmp_path):
    url = f"postgresql+psycopg://hostler@/none?host={tmp_path}"
    with pytest.raises(StoreUnavailable):
        async with Store(url, tuning=Tuning(patience_s=0.0)):
            pass
