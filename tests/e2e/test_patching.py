"""A play patches a fleet of twenty under constant builds: no build is lost, none runs meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from e2e.api import Api
    from e2e.hub_process import HubProcess

ROOT = Path(__file__).resolve().parents[2]
FLEET = [f"p-{number:02}" for number in range(1, 21)]
IN_FLIGHT = 8

pytestmark = pytest.mark.timeout(300)


class Load:
    """Builds without end: whenever one has ended, another is submitted."""

    def __init__(self, api: Api, busy: Path) -> None:
        self._api = api
        self._busy = busy
        self._stopping = asyncio.Event()
        self.builds: list[str] = []
        self.ended: list[dict[str, Any]] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(IN_FLIGHT):
                group.create_task(self._chain(), name=f"chain {number}")

    def stop(self) -> None:
        self._stopping.set()

    async def _chain(self) -> None:
        # The instance's directory, in whose `work` it runs, tells the worker.
        command = (
            'own=$(pwd | sed "s|\\(.*/instances/[^/]*\\)/.*|\\1|"); '
            'worker=$(sed "s/.*\\"worker\\": \\"//; s/\\".*//" "$own/mark.json"); '
            'case "$worker" in p-[0-9][0-9]) ;; *) exit 1 ;; esac; '
            f'mark="{self._busy}/$worker.$$"; touch "$mark"; sleep 0.2; rm "$mark"'
        )
        while not self._stopping.is_set():
            build = await self._api.submit(command, requires={"labels": ["patched"]})
            self.builds.append(build)
            self.ended.append(await self._api.ended(build))


async def patch(hub: HubProcess, directory: Path, *arguments: str) -> tuple[int, str]:
    """playbooks/patch.yml as a person runs it, with an inventory of the fleet."""
    hosts: dict[str, Any] = {name: {} for name in FLEET}
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory = directory / "hosts.json"
    inventory.write_text(json.dumps({"workers": {"hosts": hosts, "vars": here}}))
    access = ["-e", f"hub_state_dir={hub.state_dir}", "-i", str(inventory)]
    environ = {name: value for name, value in os.environ.items() if "HOSTLER" not in name}
    environ |= {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCAL_TEMP": str(directory / "local")}
    play = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("ansible-playbook"),
        *("playbooks/patch.yml", *access, *arguments),
        cwd=ROOT,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await play.communicate()
    finally:
        if play.returncode is None:
            play.kill()
            await play.wait()
    return play.returncode or 0, output.decode()


async def test_V6_a_busy_fleet_is_patched_without_losing_a_build(
    shared_hub: HubProcess, api: Api, tmp_path: Path
) -> None:
    busy, patched = tmp_path / "busy", tmp_path / "patched"
    busy.mkdir()
    patched.mkdir()
    tasks = [
        {
            "name": "See that nothing runs here",
            "ansible.builtin.assert": {
                "that": f"query('fileglob', '{busy}/' ~ inventory_hostname ~ '.*') | length == 0"
            },
        },
        {
            "name": "Patch",
            "ansible.builtin.file": {
                "path": f"{patched}/{{{{ inventory_hostname }}}}",
                "state": "touch",
            },
        },
    ]
    (tmp_path / "tasks.yml").write_text(json.dumps(tasks))
    await api.define(*FLEET, labels=["patched"])
    load = Load(api, busy)
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(), name="load")
        try:
            arguments = ["-e", f"tasks_file={tmp_path}/tasks.yml", "-e", "reason=compiler"]
            code, output = await patch(shared_hub, tmp_path, *arguments, "-e", "batch=10")
        finally:
            load.stop()
    assert code == 0, output
    assert sorted(path.name for path in patched.iterdir()) == FLEET
    assert len(load.ended) == len(load.builds) > IN_FLIGHT
    ends = {(build["state"], build["attempts"]) for build in load.ended}
    assert ends == {("success", 1)}
    ran_on = {build["worker"] for build in load.ended}
    assert len(ran_on) > 5, "builds ran while others were patched"
    seen = await api.post("/workers/query", {"names": FLEET})
    assert {(view["mode"], view["state"] != "insubstantiating") for view in seen["items"]} == {
        ("active", True)
    }
