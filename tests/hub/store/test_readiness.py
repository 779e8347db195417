"""Readiness is tried out: the database, the state directory, the descriptors; and it comes back."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import subprocess
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
from peers import small_disk

from hostler_hub.lifecycle.backoff import Backoff
from hostler_hub.runtime.stalls import Stalls
from hostler_hub.store.engine import Store
from hostler_hub.store.errors import StoreExhausted, StoreReadOnly, StoreUnavailable
from hostler_hub.store.health import Use
from hostler_hub.store.readiness import Readiness
from hostler_hub.store.tuning import Tuning

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

QUICK = Tuning(busy_timeout_s=0.01, patience_s=0.0, retry=Backoff(0.001, 0.01))


@pytest.fixture
def path(tmp_path: Path, sqlite_template: Path) -> Path:
    file = tmp_path / "hub.sqlite3"
    file.write_bytes(sqlite_template.read_bytes())
    return file


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    async with Store(f"sqlite:///{path}", tuning=QUICK) as made:
        yield made


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "state"
    directory.mkdir()
    return directory


async def test_an_outage_is_over_by_itself_and_counted_as_the_hub_s_own(
    store: Store, path: Path, state_dir: Path
) -> None:
    readiness, healed = Readiness(store, state_dir), asyncio.Event()
    now = [0.0]
    stalls = Stalls(lambda: now[0])
    watching = asyncio.create_task(readiness.watch(stalls, healed.set))
    assert await readiness.why_not() is None
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await readiness.why_not() == "the database is locked by another process"
        await asyncio.sleep(0)
        now[0] = 100.0
        assert await readiness.why_not() == "the database is locked by another process"
        other.execute("ROLLBACK")
    async with asyncio.timeout(60):
        await healed.wait()
    assert await readiness.why_not() is None
    assert stalls.total_s() == 100.0
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await readiness.aclose()


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", str(directory)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(directory)], check=True)


@contextmanager
def full(directory: Path) -> Iterator[None]:
    ballast = small_disk.fill(directory, 0)
    yield
    ballast.unlink()


@pytest.mark.peer("small-disk")
@pytest.mark.parametrize(
    ("fault", "words"), [(read_only, "read-only file system"), (full, "no space left on device")]
)
async def test_a_state_directory_that_takes_no_files(
    store: Store, state_dir: Path, fault: Callable[[Path], Iterator[None]], words: str
) -> None:
    readiness = Readiness(store, state_dir)
    with small_disk.mounted(state_dir, "64k"):
        assert await readiness.why_not() is None
        with fault(state_dir):  # type: ignore[attr-defined]
            said = f"the state directory cannot be written: {words}"
            assert await readiness.why_not() == said
        assert await readiness.why_not() is None
    await readiness.aclose()


@contextmanager
def without_descriptors() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_no_descriptors_left_are_told_as_that(store: Store, state_dir: Path) -> None:
    readiness = Readiness(store, state_dir)
    await store.write(lambda _c: None)  # the writer has its connection
    with without_descriptors():
        with pytest.raises(StoreExhausted):  # the readers have none yet
            await store.read(lambda c: c.exec_driver_sql("SELECT 1").scalar_one())
        assert store.health.trouble is not None
        assert store.health.trouble.reason == "the hub has no file descriptors left"
        assert await readiness.why_not() == "the hub has no file descriptors left"
    assert await store.read(lambda c: c.exec_driver_sql("SELECT 1").scalar_one()) == 1
    assert await readiness.why_not() is None
    await readiness.aclose()


async def test_a_database_that_takes_no_writes(store: Store, state_dir: Path) -> None:
    """As on a file system that the kernel has remounted read-only after an error."""

    def forbid(c):
        c.exec_driver_sql("PRAGMA query_only=ON")

    await store.write(forbid)
    with pytest.raises(StoreReadOnly):
        await store.write(lambda c: c.exec_driver_sql("DELETE FROM meta"))
    assert await Readiness(store, state_dir).why_not() == "the database takes no writes"


async def test_reads_are_refused_at_once_while_they_are_known_to_fail(path: Path) -> None:
    """Else those who wait for the database would keep its few threads from everybody."""
    patient = Tuning(patience_s=3600, retry=Backoff(0.001, 0.01))
    async with Store(f"sqlite:///{path}", tuning=patient) as store:
        store.health.failed(Use.READ, StoreUnavailable("gone"))

        def fail(_c):
            error = sqlite3.OperationalError("unable to open the database file")
            error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise error

        with pytest.raises(StoreUnavailable):
            await store.read(fail)
