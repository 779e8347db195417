"""A hub that was restored from a backup adopts, reports, and ends nothing until confirmed (P18).

The provider has gone on since the backup: a worker was stopped, another one started.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
from hub.web.conftest import archive as archive  # noqa: PLC0414
from hub.web.conftest import site as site  # noqa: PLC0414 - a fixture, used by its name
from hub.web.harness import Api, Site, api_on

from hostler_hub.runtime.settings import Settings
from hostler_hub.specs.caller import Role
from hostler_hub.store import backups, restores

BASE = "/api/v1"
BUILD = {"steps": [{"name": "run", "command": "true"}], "requires": {"worker": "kept"}}


async def operator_of(api: Api) -> httpx2.AsyncClient:
    return api.client(await api.token(Role.OPERATOR))


async def post(client: httpx2.AsyncClient, path: str, **body: Any) -> Any:
    answer = await client.post(BASE + path, json=body)
    assert answer.is_success, answer.text
    return answer.json()


async def run_before(site: Site, file: Path) -> dict[str, Any]:
    """A hub that is backed up, goes on, and is lost. Returns what the provider has at that time."""
    async with api_on(site) as api:
        operator = await operator_of(api)
        names = ["kept", "later"]
        workers = [{"name": name, "driver": "fake", "build_wait_timeout": -1} for name in names]
        await post(operator, "/workers/define", workers=workers)
        await post(operator, "/workers/substantiate", names=["kept"])
        await api.attach("kept")
        backups.back_up(site.settings, file)
        await post(operator, "/workers/substantiate", names=["later"])
        await api.settle()
        return dict(site.provider.instances)


def restored(site: Site, file: Path, directory: Path) -> Site:
    settings = Settings(state_dir=directory, port=1)
    restores.restore(settings, file)
    return replace(site, settings=settings)


async def test_P18_nothing_is_started_or_ended_until_confirmed(site: Site, tmp_path: Path) -> None:
    left = await run_before(site, tmp_path / "backup.tar")
    assert len(left) == 2
    site.provider.instances.update(left)  # the lost hub has stopped nothing
    async with AsyncExitStack() as stack:
        there = restored(site, tmp_path / "backup.tar", tmp_path / "new")
        api = await stack.enter_async_context(api_on(there))
        operator = await operator_of(api)
        hold = (await operator.get(f"{BASE}/status")).json()["hold"]
        assert hold.startswith("the hub was restored from the backup of ")

        await api.attach("kept")  # what the backup knows is adopted
        found = await post(operator, "/reconcile", dry_run=True)
        assert found["hold"] == hold
        assert [(each["kind"], each["action"]) for each in found["findings"]] == [
            ("unknown", "hold")
        ]
        assert hold in found["findings"][0]["reason"]
        order = {"names": ["later"]}
        refused = await operator.post(f"{BASE}/workers/substantiate", json=order)
        assert (refused.status_code, hold in refused.text) == (409, True)
        submitted = await post(operator, "/builds", **BUILD)
        await api.pass_time(7200)  # longer than anything unknown is held
        await post(operator, "/reconcile")
        await api.settle()
        assert site.provider.instances.keys() == left.keys()
        build = (await operator.get(f"{BASE}/builds/{submitted['id']}")).json()
        assert (build["state"], hold in build["why"]) == ("queued", True)

        settled = await post(operator, "/reconcile", confirmed=True)
        assert [(each["kind"], each["done"]) for each in settled["findings"]] == [("unknown", True)]
        assert settled["hold"] is None
        assert len(site.provider.instances) == 1
        await post(operator, "/workers/substantiate", names=["later"])
        await api.settle()
        assert len(site.provider.instances) == 2
        assert (await operator.get(f"{BASE}/status")).json()["hold"] is None
    async with api_on(there) as api:  # it is over for good
        operator = await operator_of(api)
        assert (await operator.get(f"{BASE}/status")).json()["hold"] is None
