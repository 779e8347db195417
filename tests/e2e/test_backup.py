"""A backup of a hub at work, made by a process of its own, and what is restored of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import file_locks
from e2e.api import Api, until
from e2e.hub_process import HubProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ARTIFACT = {"name": "keep", "upload": {"from": "out"}}


def hostler_hub(*words: str, url: str | None) -> str:
    """The command line's output; it succeeds."""
    kept = {name: value for name, value in os.environ.items() if "HOSTLER" not in name}
    if url is not None:
        kept["HOSTLER_DATABASE_URL"] = url
    command = [sys.executable, "-m", "hostler_hub", *words]
    done = subprocess.run(command, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def build_until(api: Api, over: asyncio.Event) -> list[str]:
    """Builds, one after the other, each with an artifact; those that have ended."""
    ended = []
    while not over.is_set():
        build = await api.submit("date > out", ARTIFACT, worker="w")
        assert (await api.ended(build))["state"] == "success"
        ended.append(build)
    return ended


async def test_a_hub_at_work_is_backed_up_and_restored_in_hold(
    make_hub: Callable[..., HubProcess], tmp_path: Path
) -> None:
    hub, file = make_hub(), tmp_path / "backup.tar"
    hub.start()
    over = asyncio.Event()
    async with Api(hub.url, hub.token) as api:
        await api.define("w")
        before = await api.submit("date > out", ARTIFACT, worker="w")
        await api.ended(before)
        working = asyncio.create_task(build_until(api, over))
        words = ["backup", str(file), "--state-dir", str(hub.state_dir)]
        await asyncio.to_thread(hostler_hub, *words, url=None)
        over.set()
        after = await working
        database = hub.state_dir / "hub.sqlite3"
        assert "READ" in file_locks.held(hub.pid, database)  # another process was at it (V22)
        last = await api.submit("true", worker="w")
        await api.ended(last)
        made = (await api.client.get(f"/api/v1/builds/{before}/artifacts/out")).content
        hub.kill()
    restored = tmp_path / "restored"
    words = ["restore", str(file), "--state-dir", str(restored)]
    assert "in hold" in hostler_hub(*words, url=None)
    with HubProcess.running(restored) as other:
        async with Api(other.url, hub.token) as api:  # admin.token is the old one
            status = json.loads(hostler_hub("status", "--json", *words[2:], url=None))
            assert status["hold"].startswith("the hub was restored from the backup of ")
            again = (await api.client.get(f"/api/v1/builds/{before}/artifacts/out")).content
            assert again == made
            known = [
                build
                for build in after
                if (await api.client.get(f"/api/v1/builds/{build}")).status_code == 200
            ]
            assert known == after[: len(known)]
            assert (await api.client.get(f"/api/v1/builds/{last}")).status_code == 404
            await api.define("fresh")  # the agent of the other still asks for the lost hub
            waiting = await api.submit("true", worker="fresh")
            view = await api.get(f"/builds/{waiting}")
            assert (view["state"], status["hold"] in view["why"]) == ("queued", True)
            await api.post("/reconcile", {"confirmed": True})
            await until(lambda: api.get(f"/builds/{waiting}"), lambda view: view["finished_at"])
