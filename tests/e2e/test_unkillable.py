"""V10, E7: a build leaves a process that cannot be killed; its worker is not used again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from peers import hanging_disk
from peers.hanging_disk import HangingDisk

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.api import Api
    from e2e.hub_process import HubProcess


@pytest.mark.skipif(not hanging_disk.is_available(), reason=hanging_disk.MISSING)
async def test_E7_who_survives_quarantines_the_worker_by_name(
    api: Api, shared_hub: HubProcess, tmp_path: Path
) -> None:
    await api.define("hung")
    with HangingDisk(tmp_path) as disk:
        build = await api.submit(f"cat {disk.path}/file; true", worker="hung")
        assert await asyncio.to_thread(disk.touched.wait, 60)
        await api.cancel(build)
        view = await api.ended(build)
        assert view["state"] == "cancelled"
        (survivor,) = view["steps"][0]["receipt"]["survivors"]
        assert survivor["name"] == "cat"
        await shared_hub.logged(event="worker changed state", worker="hung", happened="Released")
        assert (await api.quarantined("hung")).endswith(
            f"processes of the build survived its end: cat ({survivor['pid']})"
        )
    await shared_hub.latent(api, "hung")  # it is tried again until nothing is left
