"""kill -9 of the hub ten times at random moments under load.

What is left is one result for each build that was accepted, run once, and no process, no lease and
no lock. The moments are drawn from a seed that a failure names; HOSTLER_SEED=N draws them again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from e2e.api import Api
from e2e.submitters import Signs, Submitter

from hostler_hub.store import tables
from hostler_hub.store.engine import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2e.hub_process import HubProcess

KILLS = 10
CHAINS = 8
# Agents come back the later the more often they had no hub, so a life lasts until something has
# happened in it, or for so long; and then for a while that is drawn.
PROGRESS_S = 3.0
LONGEST_MORE_S = 1.0
PATIENCE_S = 240  # theirs is two minutes by then
# Some end their instances at once, some soon: starts and stops are under way too.
WAITS = {"w1": 0.0, "w2": 0.0, "w3": 0.3, "w4": 0.3, "w5": 3.0}

pytestmark = pytest.mark.timeout(600)


async def _kill_at_random(hub: HubProcess, signs: Signs, dice: random.Random) -> None:
    for _ in range(KILLS):
        signs.progress.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(signs.progress.wait(), PROGRESS_S)
        await asyncio.sleep(dice.uniform(0, LONGEST_MORE_S))  # the moment is what is tried
        signs.up.clear()
        await asyncio.to_thread(hub.kill)
        await asyncio.to_thread(hub.start)
        signs.up.set()


def _open_leases(connection: sa.Connection) -> int:
    leases = tables.leases
    count = sa.select(sa.func.count()).select_from(leases).where(leases.c.ended_at.is_(None))
    return connection.execute(count).scalar_one()


async def test_K1_to_K11_ten_kills_at_random_moments_under_load(
    make_hub: Callable[..., HubProcess], tmp_path: Path
) -> None:
    seed = int(os.environ.get("HOSTLER_SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"HOSTLER_SEED={seed}")
    runs = tmp_path / "runs"
    runs.mkdir()

    def build(key: str) -> dict[str, Any]:
        """It says that it ran, and leaves a daemon behind, which must die with it."""
        command = f"echo run >>{runs}/{key}; setsid sleep 600 >/dev/null 2>&1 & sleep 0.2"
        return {"steps": [{"name": "run", "command": command}]}

    hub, signs = make_hub(), Signs()
    await asyncio.to_thread(hub.start)
    async with Api(hub.url, hub.token) as api:
        for name, wait_s in WAITS.items():
            await api.define(name, max_builds=2, build_wait_timeout=wait_s)
    signs.up.set()
    clients = [Submitter(f"c{number}", hub, signs, build) for number in range(CHAINS)]
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.run(), name="client")
        dice = random.Random(seed)
        await _kill_at_random(hub, signs, dice)
        signs.stopping = True
    ended = {key: view for client in clients for key, view in client.ended.items()}
    assert len(ended) > KILLS
    outcomes = {key: (view["state"], view["attempts"]) for key, view in ended.items()}
    assert set(outcomes.values()) == {("success", 1)}, outcomes
    assert {path.name: path.read_text() for path in runs.iterdir()} == dict.fromkeys(ended, "run\n")
    async with Api(hub.url, hub.token) as api:
        page = await api.get("/builds?limit=500")
        assert len(page["items"]) == len(ended), "one build for each key, none beside them"
        # A slot is cleaned after its build has its result, and a hub that stops leaves it leased.
        await api.post("/workers/mode", {"select": {"all": True}, "mode": "draining"})
        for name in WAITS:
            await hub.latent(api, name, PATIENCE_S)
    assert await asyncio.to_thread(hub.stop) == 0
    assert hub.leftovers() == []
    url = f"sqlite:///{hub.state_dir / 'hub.sqlite3'}"
    async with Store(url, exclusive=True) as store:  # the hub's lock is free
        assert await store.read(_open_leases) == 0
