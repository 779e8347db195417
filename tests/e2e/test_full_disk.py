"""A worker whose disk is full: steps fail and say so, and everything else goes on."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from e2e.api import Api
from e2e.hub_process import HubProcess
from peers import small_disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FULL = "No space left on device"


@contextlib.contextmanager
def small_hub(directory: Path) -> Iterator[HubProcess]:
    """Its local instances, with all that is theirs, have 16 MiB."""
    with (
        small_disk.mounted(directory / "hub" / "instances" / "local", "16m"),
        HubProcess.running(directory / "hub") as hub,
    ):
        yield hub


@pytest.mark.peer("small-disk")
async def test_E14_a_full_disk_fails_the_steps_and_is_reported(tmp_path: Path) -> None:
    with small_hub(tmp_path) as hub:
        async with Api(hub.url, hub.token) as api:
            await api.define("full")
            text = {"to": "file", "content": "x" * 10_000}
            steps = [
                {"name": "fill", "command": "mkdir here && head -c 64M /dev/zero > here/fill"},
                {"name": "file", "download": text},
                {"name": "count", "command": "seq 100000"},
                {"name": "copy", "copy": {"from": "here", "to": "there"}},
                {"name": "room", "rmdir": ["here", "there"]},
                {"name": "again", "download": text},
            ]
            go_on = [{**step, "halt_on_failure": False} for step in steps]
            build = await api.submit(*go_on, worker="full")
            view = await api.ended(build)
            states = [step["state"] for step in view["steps"]]
            assert states == ["failure", "failure", "success", "failure", "success", "success"]
            for step in (0, 1, 3):
                assert FULL in (await api.log(build, step)).decode()
            assert (await api.output(build, 2)).endswith(b"\n100000\n")
            assert (await api.ended(await api.submit("true", worker="full")))["state"] == "success"
            assert (await api.worker("full"))["quarantine"] is None
