"""EC2 instances whose machines are stopped at their end, and boot again for the next builds.

And kill -9 of the hub at every point of that: what is left is a machine that its worker keeps, or
none; never one that nobody knows of. With the whole of a build as the proof that it still works.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest
from e2e.ec2_fleet import Fleet, fleet_at, running_at
from peers import ec2
from peers.ec2 import Fault, Weather

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from e2e.api import Api
    from e2e.gates import Gate

pytestmark = pytest.mark.peer("ec2-machines")

# Agents whose hubs keep dying wait up to two minutes before they try the next.
PATIENCE_S = 240

NEVER = "never"
STOP = {"at_end": "stop"}


@pytest.fixture(scope="module")
def cloud_url() -> Iterator[str]:
    with ec2.region() as url:
        yield url


@pytest.fixture(scope="module")
def fleet(cloud_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_at(cloud_url, tmp_path_factory.mktemp("stop")) as made:
        yield made


@pytest.fixture
async def api(fleet: Fleet) -> AsyncIterator[Api]:
    async with fleet.api() as made:
        yield made


async def reconciled(api: Api) -> tuple[list[str], int]:
    """What differed, by kind, and how many machines are kept."""
    report = await api.post("/reconcile", {"drivers": ["ec2"]})
    assert report["unanswered"] == []
    assert all(each["done"] for each in report["findings"])
    (checked,) = report["checked"]
    return [each["kind"] for each in report["findings"]], checked["spares"]


async def remove(api: Api, name: str) -> None:
    await api.post("/workers/remove", {"names": [name]})


async def test_the_next_build_has_the_same_machine_and_nothing_of_the_last_ones_workspace(
    fleet: Fleet, api: Api
) -> None:
    made = fleet.cloud.operations().count("RunInstances")
    await fleet.define(api, "rested", options=STOP, build_wait_timeout=0)
    leave = "touch left; ls /var/lib/hostler; echo kept > /var/lib/of-the-disk"
    first = await api.submit(["sh", "-c", leave], worker="rested")
    assert (await api.ended(first))["state"] == "success"
    await fleet.hub.latent(api, "rested")
    (machine,) = fleet.living()
    assert fleet.cloud.state(machine) == "stopped"
    assert fleet.machines.living() == set()
    assert await reconciled(api) == ([], 1), "it is no orphan"
    (of_first,) = (await api.output(first)).decode().split()

    look = "pwd; ls -A; ls /var/lib/hostler; cat /var/lib/of-the-disk"
    second = await api.submit(["sh", "-c", look], worker="rested")
    assert (await api.ended(second))["state"] == "success"
    where, *seen = (await api.output(second)).decode().split()
    of_second = where.split("/")[4]
    assert of_second != of_first
    assert seen == [of_second, "kept"], (
        "an empty workspace, its own directory only, and the disk of before"
    )
    await fleet.hub.latent(api, "rested")
    assert list(fleet.living()) == [machine]
    assert (await api.worker("rested"))["epoch"] == 2
    assert fleet.cloud.operations().count("RunInstances") == made + 1

    await remove(api, "rested")
    assert await reconciled(api) == (["spare"], 0)
    assert fleet.leftovers() == []


async def test_P17_a_machine_to_be_stopped_is_terminated_where_no_hub_is_left_to_stop_it(
    fleet: Fleet, api: Api, make_gate: Callable[[], Gate]
) -> None:
    gate = make_gate()
    options = {**STOP, "orphan_timeout_s": 60}
    await fleet.define(api, "orphaned", options=options)
    build = await api.submit(gate.command, worker="orphaned")
    await gate.entered()
    machine = await fleet.machine_of(api, "orphaned")
    (instance_id,) = fleet.living()
    # What its agent does after that minute; the minute itself is tested with the agent.
    config = (machine.directory / "disk" / "hostler").glob("*/agent.json")
    assert '"at_end": "poweroff_if_orphaned"' in next(config).read_text()
    gate.open()
    assert (await api.ended(build))["state"] == "success"
    # An agent that is only told to go leaves the machine to the hub, which stops it.
    await api.mode("orphaned", "draining")
    await fleet.hub.latent(api, "orphaned")
    assert fleet.cloud.state(instance_id) == "stopped"
    # Defined otherwise, it is of no use any more.
    await fleet.define(api, "orphaned")
    assert await reconciled(api) == (["spare"], 0)
    assert fleet.leftovers() == []


@dataclass(frozen=True)
class Death:
    """At a `point` of the hub's code, or by the cloud: at an order, or once it is `done`."""

    point: str = NEVER
    order: str = ""
    done: bool = False


# While a machine at rest is taken up for a build, or stopped after it.
CRASHES = {
    "not told": Death(order="ModifyInstanceAttribute"),
    "told": Death(order="ModifyInstanceAttribute", done=True),
    "not claimed": Death(order="CreateTags"),
    "claimed": Death(order="CreateTags", done=True),
    "start lost": Death(order="StartInstances"),
    "start carried out": Death(order="StartInstances", done=True),
    "stop lost": Death(order="StopInstances"),
    "stop carried out": Death(order="StopInstances", done=True),
    "stopped": Death("after keep"),
}
LIVES = (
    ("not told", "start carried out", "stop carried out"),
    ("told", "start lost", "stopped"),
    ("not claimed", "claimed", "stop lost"),
)
BAD = Weather(hidden_s=2.0, stale_s=1.5, throttled_every=5, lying_every=2)
BAD_LIFE = ("start lost", "stop carried out")


def test_every_point_has_its_life() -> None:
    assert sorted(name for life in LIVES for name in life) == sorted(CRASHES)


@pytest.mark.timeout(500)
async def test_K2_K3_K11_crashes_between_stop_and_start_leave_what_the_ledger_lists(
    cloud_url: str, tmp_path: Path
) -> None:
    async def live(name: str, deaths: Sequence[str], weather: Weather) -> None:
        with fleet_at(cloud_url, tmp_path, sys.executable, name) as fleet:
            fleet.cloud.weather = weather
            await Life(fleet).through(deaths)

    async with asyncio.TaskGroup() as group:
        for number, deaths in enumerate(LIVES):
            group.create_task(live(f"hub-{number}", deaths, Weather()))
        group.create_task(live("hub-in-bad-weather", BAD_LIFE, BAD))


class Life:
    """A hub that dies again and again, each time in the middle of a build's machine."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.hub = fleet, fleet.hub
        self.hub.mortal = Path(__file__).parent / "mortal_ec2_hub.py"
        self.builds = 0

    async def through(self, deaths: Sequence[str]) -> None:
        await asyncio.to_thread(self.fleet.start, dies_at=NEVER)
        async with self.fleet.api() as api:
            await self.fleet.define(
                api, "w", options=STOP, build_wait_timeout=0, check_instance_interval=1
            )
            for death in deaths:
                await self.survive(api, death)
            await remove(api, "w")
            findings, spares = await reconciled(api)
            assert (set(findings) <= {"spare"}, spares) == (True, 0)
            assert self.fleet.leftovers() == []
        assert await asyncio.to_thread(self.hub.stop) == 0

    async def survive(self, api: Api, death: str) -> None:
        try:
            await self.crash(api, CRASHES[death])
            await self.settle(api)
        except BaseException as error:
            error.add_note(f"after the death {death!r}")
            raise

    async def crash(self, api: Api, death: Death) -> None:
        """A build that the hub does not survive, with a machine at rest for it."""
        if not self.fleet.living():
            first = await api.submit(["true"], worker="w")
            assert (await api.ended(first))["state"] == "success"
            await self.hub.latent(api, "w")
        assert len(self.fleet.living()) == 1
        if death.point != NEVER:
            assert await asyncio.to_thread(self.hub.stop) == 0
            await asyncio.to_thread(self.fleet.start, dies_at=death.point)
        if death.order:
            fault = Fault(death.order, done=death.done, then=self.hub.shoot)
            self.fleet.cloud.faults.append(fault)
        self.builds += 1
        with contextlib.suppress(httpx2.TransportError):  # it may die in the middle of it
            await self.submit(api, self.builds)
        await self.hub.died(PATIENCE_S)

    async def settle(self, api: Api) -> None:
        """The next hub: nothing is lost, and the cloud has what the ledger has."""
        await asyncio.to_thread(self.fleet.start, dies_at=NEVER)
        for number in range(1, self.builds + 1):
            build = await self.submit(api, number)  # the same, by its key
            view = await api.ended(build, PATIENCE_S)
            assert (view["state"], view["attempts"]) == ("success", 1)
        await self.hub.latent(api, "w")
        await reconciled(api)
        differences, spares = await reconciled(api)
        assert differences == [], "one pass settles it"
        assert len(self.fleet.living()) == spares <= 1
        assert self.fleet.machines.living() == set()
        assert (await api.worker("w"))["quarantine"] is None

    async def submit(self, api: Api, number: int) -> str:
        return await api.submit(["true"], worker="w", key=str(number))
