"""Hostile builds, for each isolation: what they try, and that the docs say what they get."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psutil
import pytest
from e2e import hostile
from e2e.api import Api
from e2e.hub_process import HubProcess
from e2e.test_docker import Fleet, fleet_at
from peers import docker as peer

from hostler_agent.jobs.posix import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

VICTIM = """
echo 1 > result; echo secret > /tmp/hostler-neighbour; echo $$; pwd; exec sleep 1000
"""
LEAVE = """
touch /tmp/hostler-left
setsid sleep 7654 < /dev/null > /dev/null 2>&1 &
ln -s {instance}/agent.json link
"""
LOOK = """
rm /tmp/hostler-left 2>/dev/null && echo left; cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '
"""
FIND = """
for each in /proc/[0-9]*; do grep -q "agent[.]pyz" $each/cmdline && echo ${each#/proc/}; done; true
"""
UPLOAD: dict[str, Any] = {"name": "send", "upload": {"from": "link"}}


async def attack(api: Api, worker: str, where: dict[str, str]) -> hostile.Can | dict[str, bool]:
    """What succeeds of all attempts, by name."""
    victim = await api.submit(["sh", "-c", VICTIM], worker=worker)
    told = await api.log_says(victim, rb"(\d+)\n(/[^\n]+)\n")
    where |= {"NEIGHBOUR": told[1].decode(), "NEIGHBOUR_DIR": told[2].decode()}
    leave = LEAVE.format(instance=where["INSTANCE"])
    hostile_build = await api.submit(
        ["sh", "-c", hostile.script(where)], ["sh", "-c", leave], UPLOAD, worker=worker
    )
    view = await api.ended(hostile_build)
    said = (await api.output(hostile_build)).decode()
    got = {name: answer == "yes" for name, answer in map(str.split, said.splitlines())}
    got["agent_led"] = view["steps"][2]["state"] == "success"
    look = await api.ended(await api.submit(["sh", "-c", LOOK], worker=worker))
    seen = await api.output(look["id"])
    here = " ".join(
        word for each in psutil.process_iter(["cmdline"]) for word in each.info["cmdline"] or ()
    )
    got["leave"] = b"left" in seen.split(b"\n")[0]
    got["stay"] = b"sleep 7654" in seen or "sleep 7654" in here
    await api.cancel(victim)
    await api.ended(victim)
    return got


def expected(column: str) -> dict[str, bool]:
    return {attempt.name: getattr(attempt.can, column) for attempt in hostile.ATTEMPTS}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    if (problem := namespaces.problem()) is not None:
        pytest.skip(f"needs root that may make namespaces: {problem}")
    with HubProcess.running(tmp_path_factory.mktemp("hostile") / "hub") as made:
        yield made


@pytest.mark.parametrize(
    ("run_as", "column"), [("build_user", "user"), ("agent", "none")], ids=["user", "none"]
)
async def test_V20_what_a_build_can_do_on_the_hubs_machine(
    hub: HubProcess, run_as: str, column: str
) -> None:
    async with Api(hub.url, hub.token) as api:
        worker = f"local-{column}"
        await api.define(worker, max_builds=3, run_as=run_as)
        await api.ended(await api.submit(["true"], worker=worker))
        assert (await api.worker(worker))["isolation"] == column
        where = {
            "INSTANCE": str(hub.instance_of(worker)),
            "STATE": str(hub.state_dir),
            "AGENT": str(hub.agent_of(worker)),
            "HUB": str(hub.pid),
        }
        assert await attack(api, worker, where) == expected(column)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with peer.shared() as url, fleet_at(url, tmp_path_factory.mktemp("hostile-docker")) as made:
        made.start()
        yield made


@pytest.mark.peer("docker")
@pytest.mark.parametrize(
    ("run_as", "column", "isolation"),
    [("build_user", "user_in_a_container", "user"), ("agent", "container", "container")],
    ids=["user", "agent"],
)
async def test_V20_what_a_build_can_do_in_a_container(
    fleet: Fleet, run_as: str, column: str, isolation: str
) -> None:
    async with fleet.api() as api:
        worker = f"docker-{isolation}"
        await fleet.define(api, worker, max_builds=3, run_as=run_as)
        await api.ended(await api.submit(["true"], worker=worker))
        assert (await api.worker(worker))["isolation"] == isolation
        found = await api.ended(await api.submit(["sh", "-c", FIND], worker=worker))
        agents = [int(pid) for pid in (await api.output(found["id"])).split()]
        where = {
            "INSTANCE": "/hostler",
            "STATE": str(fleet.hub.state_dir),
            "AGENT": str(max(agents)),
            "HUB": str(fleet.hub.pid),
        }
        assert await attack(api, worker, where) == expected(column)
