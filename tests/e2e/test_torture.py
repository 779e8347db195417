"""Everything at once, at random moments, under load: the hub, agents and spawners are killed or
frozen, the database is locked and read by others, the disk is full.

What is left is one result for each build that was accepted, no attempt that ran twice, and no
process. The faults are drawn from a seed that a failure names; HOSTLER_SEED=N draws them again.
`make torture` makes twenty rounds of them on each database, the tests three.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import sqlalchemy as sa
from e2e.api import Api
from e2e.submitters import Signs, Submitter
from e2e.test_database_files import READER
from peers import small_disk

from hostler_hub.store import tables
from hostler_hub.store.engine import Store

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.hub_process import HubProcess

ROUNDS = int(os.environ.get("HOSTLER_TORTURE_ROUNDS") or 3)
FAULTS_IN_A_ROUND = 4
CHAINS = 6
WAITS = {"w1": 0.0, "w2": 0.3, "w3": 3.0, "w4": 3.0}
PROGRESS_S = 5.0
LONGEST_S = 2.0  # a fault that lasts
PATIENCE_S = 300

pytestmark = [pytest.mark.timeout(600 + 60 * ROUNDS), pytest.mark.peer("small-disk")]


class Witness:
    """Hears from each run of a build: a connection that its processes hold as long as they live."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.alive = 0
        self.port = 0

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._hear, "127.0.0.1")
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.alive += 1
        with contextlib.suppress(ConnectionError):
            self.runs[(await reader.readline()).decode().strip()] += 1
            await reader.read()
        self.alive -= 1
        writer.close()

    def build(self, key: str) -> dict[str, Any]:
        """It says that it runs, and leaves a daemon behind, which must die with it."""
        command = (
            f"exec 3<>/dev/tcp/127.0.0.1/{self.port}; echo {key} >&3; "
            "setsid sleep 600 >/dev/null 2>&1 & sleep 0.2"
        )
        step = {"name": "run", "command": ["bash", "-c", command]}
        return {"steps": [step], "retry": {"on_loss": 50}}


class Faults:
    """The harm that is done to a hub and its agents."""

    def __init__(self, hub: HubProcess, signs: Signs, dice: random.Random, lock: Lock) -> None:
        self._hub = hub
        self._signs = signs
        self._dice = dice
        self._lock = lock
        self._kinds: Sequence[Callable[[], Awaitable[None]]] = (
            self.kill_hub,
            self.kill_agent,
            self.kill_spawner,
            self.freeze_hub,
            self.freeze_agent,
            self.lock_database,
            self.fill_disk,
        )

    async def round(self) -> list[str]:
        """Some faults of different kinds, each at a moment that is drawn; their names."""
        chosen = self._dice.sample(self._kinds, FAULTS_IN_A_ROUND)
        for fault in chosen:
            self._signs.progress.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._signs.progress.wait(), PROGRESS_S)
            await asyncio.sleep(self._dice.uniform(0, 0.5))  # the moment is what is tried
            await fault()
        return [fault.__name__ for fault in chosen]

    async def kill_hub(self) -> None:
        self._signs.up.clear()
        await asyncio.to_thread(self._hub.kill)
        await asyncio.to_thread(self._hub.start)
        self._signs.up.set()

    async def kill_agent(self) -> None:
        self._signal(self._agents(), signal.SIGKILL)

    async def kill_spawner(self) -> None:
        spawners = [
            child for agent in self._agents() for child in _children(agent) if _is_spawner(child)
        ]
        self._signal(spawners, signal.SIGKILL)

    async def freeze_hub(self) -> None:
        await self._freeze(psutil.Process(self._hub.pid))

    async def freeze_agent(self) -> None:
        for agent in self._some(self._agents()):
            await self._freeze(agent)

    async def lock_database(self) -> None:
        await asyncio.to_thread(self._lock, self._dice.uniform(0.5, LONGEST_S))

    async def fill_disk(self) -> None:
        ballast = self._hub.state_dir / "ballast"
        try:
            await asyncio.to_thread(_fill, ballast)
            await asyncio.sleep(self._dice.uniform(0.5, LONGEST_S))
        finally:
            ballast.unlink()

    async def _freeze(self, process: psutil.Process) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
            await asyncio.sleep(self._dice.uniform(0.2, LONGEST_S))
            process.resume()

    def _agents(self) -> list[psutil.Process]:
        return [each for each in self._hub.agents() if each.is_running()]

    def _some(self, processes: list[psutil.Process]) -> list[psutil.Process]:
        return self._dice.sample(processes, min(1, len(processes)))

    def _signal(self, processes: list[psutil.Process], number: signal.Signals) -> None:
        for process in self._some(processes):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


Lock = Callable[[float], None]
"""Holds the database's lock against the hub for so many seconds."""


def _fill(ballast: Path) -> None:
    """Write to a file until there is no room left, whoever else writes meanwhile."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 65536):
            pass


def _children(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return process.children()
    return []


def _is_spawner(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "spawn" in " ".join(process.cmdline())
    return False


def lock_sqlite(database: Path) -> Lock:
    def lock(seconds: float) -> None:
        program = (
            "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], timeout=20);"
            "c.isolation_level = None; c.execute('BEGIN IMMEDIATE');"
            "time.sleep(float(sys.argv[2])); c.execute('ROLLBACK'); c.close()"
        )
        argv = [sys.executable, "-c", program, str(database), str(seconds)]
        subprocess.run(argv, check=False, capture_output=True)  # a full disk may refuse it

    return lock


def lock_postgresql(url: str) -> Lock:
    def lock(seconds: float) -> None:
        engine = sa.create_engine(url)
        with contextlib.suppress(sa.exc.OperationalError), engine.begin() as connection:
            connection.execute(sa.text("SET lock_timeout = '5s'"))
            connection.execute(sa.text("LOCK TABLE builds IN EXCLUSIVE MODE"))
            connection.execute(sa.text("SELECT pg_sleep(:s)"), {"s": seconds})
        engine.dispose()

    return lock


@contextlib.contextmanager
def reader_of(database: Path | None) -> Iterator[None]:
    """Another program that opens the SQLite file, reads and closes it, all the time."""
    if database is None:
        yield
        return
    argv = [sys.executable, "-c", READER, str(database)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield
        finally:
            process.communicate()


def _open_leases(connection: sa.Connection) -> int:
    leases = tables.leases
    count = sa.select(sa.func.count()).select_from(leases).where(leases.c.ended_at.is_(None))
    return connection.execute(count).scalar_one()


async def _calm(hub: HubProcess) -> None:
    """End in order what still runs, and wait until no worker has an instance."""
    async with Api(hub.url, hub.token) as api:
        await api.post("/workers/mode", {"select": {"all": True}, "mode": "draining"})
        for name in WAITS:
            await hub.latent(api, name, PATIENCE_S)


async def test_whatever_happens_nothing_is_lost_doubled_or_left(
    database_url: str | None, make_hub: Callable[..., HubProcess], tmp_path: Path
) -> None:
    seed = int(os.environ.get("HOSTLER_SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"HOSTLER_SEED={seed}")
    hub, signs, witness = make_hub(database_url), Signs(), Witness()
    database = None if database_url else hub.state_dir / "hub.sqlite3"
    lock = lock_sqlite(database) if database else lock_postgresql(database_url or "")
    with small_disk.mounted(hub.state_dir, "256m"):
        try:
            with reader_of(database):
                async with witness.listening():
                    faults = Faults(hub, signs, random.Random(seed), lock)
                    await _torture(hub, signs, witness, faults)
            assert hub.leftovers() == []
        finally:
            await asyncio.to_thread(hub.close)
        url = database_url or f"sqlite:///{database}"
        async with Store(url, exclusive=True) as store:  # the hub's lock is free
            assert await store.read(_open_leases) == 0


async def _torture(hub: HubProcess, signs: Signs, witness: Witness, faults: Faults) -> None:
    await asyncio.to_thread(hub.start)
    async with Api(hub.url, hub.token) as api:
        for name, wait_s in WAITS.items():
            await api.define(name, max_builds=2, build_wait_timeout=wait_s)
    signs.up.set()
    submitters = [Submitter(f"c{number}", hub, signs, witness.build) for number in range(CHAINS)]
    async with asyncio.TaskGroup() as group:
        for submitter in submitters:
            group.create_task(submitter.run(), name="submitter")
        done = [await faults.round() for _ in range(ROUNDS)]
        signs.stopping = True
    ended = {key: view for each in submitters for key, view in each.ended.items()}
    assert len(ended) >= ROUNDS
    results = {key: view["state"] for key, view in ended.items()}
    assert set(results.values()) == {"success"}, (done, results)
    doubled = {key for key, view in ended.items() if witness.runs[key] > view["attempts"]}
    assert not doubled, (done, doubled)
    assert {key for key in ended if not witness.runs[key]} == set(), done
    async with Api(hub.url, hub.token) as api:
        page = await api.get("/builds?limit=500")
        assert len(page["items"]) == min(500, len(ended)), "one build for each key, none beside"
    await _calm(hub)
    assert await asyncio.to_thread(hub.stop) == 0
    async with asyncio.timeout(PATIENCE_S):
        while witness.alive:  # noqa: ASYNC110 - the kernel closes them, and tells nobody
            await asyncio.sleep(0.1)
