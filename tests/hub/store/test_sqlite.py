"""SQLite's files under the store: its locks hold against everybody (V22), and lost files are news.

Each of these is about what other programs may do to a database that is in use.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading

import file_locks
import pytest

from hostler_hub.store import meta
from hostler_hub.store.engine import Store
from hostler_hub.store.errors import StoreError, StoreLost

READERS = 3

# Connects as often as a hub does, and writes when it is told to.
WRITER = """
import asyncio, sys, threading
from hostler_hub.store import meta
from hostler_hub.store.engine import Store

async def main():
    together = threading.Barrier(3)
    async with Store(sys.argv[1], exclusive=True) as store:
        await asyncio.gather(*(store.read(lambda c: together.wait(60)) for _ in range(3)))
        print("Ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            await store.write(meta.put, line.strip(), "kept")
            print("Written", flush=True)

asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path, sqlite_template):
    path = tmp_path / "hub.sqlite3"
    shutil.copy(sqlite_template, path)
    return path


def beside(path, suffix):
    return path.with_name(path.name + suffix)


async def read_at_once(store):
    """Makes the pool connect as often as it ever does."""
    together = threading.Barrier(READERS)
    await asyncio.gather(*(store.read(lambda _c: together.wait(60)) for _ in range(READERS)))


def open_and_close(path):
    """What a backup, a look with sqlite3 or a monitoring script does. In another process."""
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
        "c.execute('SELECT count(*) FROM workers').fetchall(); c.close()"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)


def locks(path):
    return [file_locks.held(os.getpid(), each) for each in (path, beside(path, "-shm"))]


async def test_locks_are_held_while_connections_come_and_go(path):
    """Whoever drops them lets any other process delete the log under us."""
    async with Store(f"sqlite:///{path}", exclusive=True) as store:
        for _ in range(2):
            await read_at_once(store)
            assert locks(path) == [{"READ"}, {"READ"}]
            await store.write(meta.put, "key", "value")
            open_and_close(path)
            assert locks(path) == [{"READ"}, {"READ"}]
            store._readers.dispose()
            store._writer._release(lost=True)
            assert locks(path) == [{"READ"}, {"READ"}]
    assert file_locks.held(os.getpid(), path) == set()


async def test_the_log_is_the_same_file_until_the_store_closes(path):
    async with Store(f"sqlite:///{path}", exclusive=True) as store:
        log = beside(path, "-wal").stat().st_ino
        store._readers.dispose()
        store._writer._release(lost=True)
        open_and_close(path)
        await store.write(meta.put, "key", "value")
        assert beside(path, "-wal").stat().st_ino == log
    assert not beside(path, "-wal").exists()


def write_and_die(path, keys):
    """A store in another process; before each write a third one opens and closes the file."""
    command = [sys.executable, "-c", WRITER, f"sqlite:///{path}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "Ready\n"
        for key in keys:
            open_and_close(path)
            process.stdin.write(f"{key}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "Written\n"
        process.send_signal(signal.SIGKILL)


async def test_v22_what_was_written_after_another_process_closed_survives_kill_9(path):
    await asyncio.to_thread(write_and_die, path, ("one", "two"))
    async with Store(f"sqlite:///{path}") as store:
        assert [await store.read(meta.get, key) for key in ("one", "two")] == ["kept", "kept"]


async def test_a_tool_beside_a_hub_leaves_its_log_and_its_locks(path):
    """Both in one process too: SQLite itself knows of the locks that it must not drop."""
    async with Store(f"sqlite:///{path}", exclusive=True) as hub:
        log = beside(path, "-wal").stat().st_ino
        async with Store(f"sqlite:///{path}") as tool:
            await read_at_once(tool)
            await tool.write(meta.put, "theirs", "1")
        assert locks(path) == [{"READ"}, {"READ"}]
        assert beside(path, "-wal").stat().st_ino == log
        await hub.write(meta.put, "ours", "1")
        assert await hub.read(meta.get, "theirs") == "1"


def delete(path, tmp_path):
    path.rename(tmp_path / "deleted")


def replace(path, tmp_path):
    shutil.copy(path, tmp_path / "replacement")
    (tmp_path / "replacement").rename(path)


LOSSES = [
    pytest.param(deed, suffix, id=f"{deed.__name__} hub.sqlite3{suffix}")
    for deed in (delete, replace)
    for suffix in ("", "-wal", "-shm")
]


@pytest.mark.parametrize(("deed", "suffix"), LOSSES)
async def test_nothing_is_acknowledged_once_a_file_is_lost(path, tmp_path, deed, suffix):
    async with Store(f"sqlite:///{path}", exclusive=True) as store:
        await store.write(meta.put, "before", "1")
        deed(beside(path, suffix), tmp_path)
        with pytest.raises(StoreLost, match=rf"hub\.sqlite3{suffix} was {deed.__name__}d"):
            await store.write(meta.put, "after", "1")
        lost = await store.watch()
        assert str(lost).startswith(f"{beside(path, suffix)} was ")


async def test_a_commit_into_a_deleted_file_is_not_acknowledged(path, tmp_path):
    """It was there when the transaction began."""

    def delete_meanwhile(c):
        meta.put(c, "key", "value")
        delete(beside(path, "-wal"), tmp_path)

    async with Store(f"sqlite:///{path}", exclusive=True) as store:
        with pytest.raises(StoreLost):
            await store.write(delete_meanwhile)


async def test_the_loss_stays_when_the_file_is_put_back(path, tmp_path):
    """What was refused may have taken place: only who opens the store anew knows again."""
    async with Store(f"sqlite:///{path}", exclusive=True) as store:
        delete(path, tmp_path)
        with pytest.raises(StoreLost):
            await store.write(meta.put, "key", "1")
        (tmp_path / "deleted").rename(path)
        with pytest.raises(StoreLost):
            await store.write(meta.put, "key", "2")
    async with Store(f"sqlite:///{path}", exclusive=True) as store:
        await store.write(meta.put, "key", "3")
        assert await store.read(meta.get, "key") == "3"


@pytest.mark.parametrize("suffixes", [["-wal"], ["-wal", "-shm"]])
async def test_what_was_acknowledged_is_kept_when_the_log_is_deleted(path, suffixes):
    async with Store(f"sqlite:///{path}", exclusive=True) as store:
        for number in range(20):
            await store.write(meta.put, f"key{number}", "kept")
        for suffix in suffixes:
            beside(path, suffix).unlink()
        with pytest.raises(StoreLost):
            await store.write(meta.put, "late", "1")
    async with Store(f"sqlite:///{path}") as store:
        found = [await store.read(meta.get, f"key{number}") for number in range(20)]
    assert found == ["kept"] * 20


async def test_a_database_put_in_the_place_is_not_spoilt_by_the_old_ones_log(
    path, tmp_path, sqlite_template
):
    """SQLite would replay a log that is left full into whatever database it lies beside."""
    restored = tmp_path / "restored"
    shutil.copy(sqlite_template, restored)
    with contextlib.closing(sqlite3.connect(restored)) as connection:
        connection.execute("INSERT INTO meta VALUES ('which', 'restored')")
        connection.commit()
    async with Store(f"sqlite:///{path}", exclusive=True) as store:
        for number in range(50):
            await store.write(meta.put, f"key{number}", "x" * 1000)
        path.rename(tmp_path / "old")
        restored.rename(path)
        assert isinstance(await store.watch(), StoreLost)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT key, value FROM meta").fetchall() == [
            ("which", "restored")
        ]
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with contextlib.closing(sqlite3.connect(tmp_path / "old")) as connection:
        assert connection.execute("SELECT count(*) FROM meta").fetchall() == [(50,)]


async def test_a_link_leads_to_the_files_that_are_watched(path, tmp_path):
    link = tmp_path / "link.sqlite3"
    link.symlink_to(path)
    async with Store(f"sqlite:///{link}", exclusive=True) as store:
        await store.write(meta.put, "key", "1")
        beside(path, "-wal").unlink()
        with pytest.raises(StoreLost, match=r"hub\.sqlite3-wal was deleted"):
            await store.write(meta.put, "key", "2")


async def test_a_file_that_cannot_be_made_is_refused_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"Not a directory|File exists"):
        async with Store(f"sqlite:///{tmp_path}/file/hub.sqlite3"):
            pass
