"""A hub whose database cannot be used for a while: it says so, keeps what it accepted, and heals.

The process lives (`/healthz`), it is not ready (`/readyz` says why), what it cannot keep is refused
at once with the same reason, the log has one line per change, and a running build knows nothing.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import sqlite3
from typing import TYPE_CHECKING

import pytest
from e2e.api import Api, until
from e2e.hub_process import HubProcess
from peers import postgresql, small_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from e2e.gates import Gate

BUILD = {"steps": [{"name": "run", "command": "true"}], "requires": {"worker": "w"}}
UNAVAILABLE, AGAIN = "database unavailable", "database available again"


async def readiness(api: Api) -> tuple[int, str | None]:
    answer = await api.client.get("/readyz")
    return answer.status_code, answer.json().get("reason")


async def survive(
    hub: HubProcess, gate: Gate, fault: AbstractContextManager[None], reason: str
) -> None:
    """Have the fault while a build runs and another waits; look at all that people see of it."""
    async with Api(hub.url, hub.token) as api:
        await api.define("w")
        running = await api.submit(gate.command, worker="w")
        await gate.entered()
        waiting = await api.submit("true", worker="w")
        assert await readiness(api) == (200, None)
        since = len(hub.log)
        with fault:
            await until(lambda: readiness(api), lambda said: said == (503, reason))
            # Noticed by a write, or by whoever asked: from then on nothing is accepted.
            await hub.logged(since, event=UNAVAILABLE)
            refused = await api.client.post("/api/v1/builds", json=BUILD)
            assert refused.status_code == 503
            assert refused.json()["detail"] == f"The hub cannot do this now: {reason}"
            assert int(refused.headers["Retry-After"]) > 0
            assert (await api.client.get("/healthz")).status_code == 200
            await gate.send(b"said in the outage\n")
        await hub.logged(since, event=AGAIN)
        await until(lambda: readiness(api), lambda said: said == (200, None))
        gate.open()
        ended = await api.ended(running)
        assert (ended["state"], ended["attempts"]) == ("success", 1), ended["result_text"]
        assert b"said in the outage\n" in await api.output(running)
        assert (await api.ended(waiting))["state"] == "success"
        assert (await api.worker("w"))["quarantine"] is None
    events = [str(line["event"]) for line in hub.log[since:]]
    assert events.count(UNAVAILABLE) == events.count(AGAIN) == 1
    told = [line for line in hub.log[since:] if "exception" in line or "exc_info" in line]
    assert told == []
    assert not any("Traceback" in event for event in events)


@contextlib.contextmanager
def locked(database: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@pytest.mark.timeout(120)
async def test_D1_a_locked_database(
    make_hub: Callable[..., HubProcess], make_gate: Callable[..., Gate]
) -> None:
    hub = make_hub()
    hub.start()
    fault = locked(hub.state_dir / "hub.sqlite3")
    await survive(hub, make_gate(), fault, "the database is locked by another process")


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    ballast = small_disk.fill(disk, 0)
    yield
    ballast.unlink()


@pytest.mark.peer("small-disk")
@pytest.mark.timeout(120)
async def test_D2_a_full_disk(tmp_path: Path, make_gate: Callable[..., Gate]) -> None:
    state_dir = tmp_path / "hub"
    with (
        small_disk.mounted(state_dir, "48m"),
        small_disk.mounted(state_dir / "instances", "48m"),  # the worker's disk is another
        HubProcess.running(state_dir) as hub,
    ):
        reason = "there is no space left for the database"
        await survive(hub, make_gate(), full(state_dir), reason)


@contextlib.contextmanager
def without_descriptors(pid: int) -> Iterator[None]:
    """The process has as many as it may have; and PostgreSQL's sessions have ended, if any."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def test_no_descriptors_left(
    make_hub: Callable[..., HubProcess], make_gate: Callable[..., Gate]
) -> None:
    """SQLite has its files open and takes writes; who asks is told that no more can be opened."""
    hub = make_hub()
    hub.start()
    gate = make_gate()
    async with Api(hub.url, hub.token) as api:
        await api.define("w")
        running = await api.submit(gate.command, worker="w")
        await gate.entered()
        since = len(hub.log)
        with without_descriptors(hub.pid):
            reason = "the state directory cannot be written: too many open files"
            await until(lambda: readiness(api), lambda said: said == (503, reason))
            stored = await api.client.post("/api/v1/files", content=b"x" * 100)
            assert (stored.status_code, stored.json()["detail"]) == (
                503,
                "The hub cannot do this now: too many open files",
            )
            accepted = await api.client.post("/api/v1/builds", json=BUILD)
            await gate.send(b"said meanwhile\n")
        await until(lambda: readiness(api), lambda said: said == (200, None))
        gate.open()
        assert (await api.ended(running))["state"] == "success"
        assert b"said meanwhile\n" in await api.output(running)
        if accepted.status_code == 201:
            assert (await api.ended(accepted.json()["id"]))["state"] == "success"
    events = [str(line["event"]) for line in hub.log[since:]]
    assert events.count("hub not ready") == events.count("hub ready again") == 1
    assert not any("Traceback" in str(line) for line in hub.log[since:])


@contextlib.contextmanager
def stopped(cluster: postgresql.Cluster) -> Iterator[None]:
    cluster.stop(signal.SIGQUIT)
    yield
    cluster.start()


@pytest.mark.peer("postgresql")
@pytest.mark.timeout(120)
async def test_D3_a_postgresql_server_that_is_gone_and_comes_back(
    make_hub: Callable[..., HubProcess], make_gate: Callable[..., Gate]
) -> None:
    with postgresql.cluster() as cluster:
        hub = make_hub(cluster.url())
        hub.start()
        await survive(hub, make_gate(), stopped(cluster), "the database does not answer")
        hub.stop()
