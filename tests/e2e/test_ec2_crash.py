"""kill -9 of the hub at every point of its dealings with EC2, on good days and on bad ones.

The hub dies by its own hand at a named point of its code, or by the cloud's: when an order reaches
it, and when it has been carried out but the answer has not left. On a bad day the cloud hides what
is new, shows what is over, throttles, and denies what it has done. (K12, what is told afterwards,
does not depend on a driver: tests/e2e/test_notifications.py.)
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
from e2e.ec2_fleet import Fleet, fleet_at
from e2e.hub_process import HubDied
from peers import ec2
from peers.ec2 import Fault, Weather

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from e2e.api import Api

pytestmark = pytest.mark.peer("ec2-machines")

# Refusals make a worker wait, each time twice as long; and agents whose hubs keep dying wait up to
# two minutes before they try the next.
PATIENCE_S = 240

NEVER = "never"


@dataclass(frozen=True)
class Death:
    """At a `point` of the hub's code, or by the cloud: at an order, or once it is `done`; with
    `verifying`, at the look that follows it."""

    point: str = NEVER
    order: str = ""
    done: bool = False
    verifying: bool = False

    def arrange(self, fleet: Fleet) -> None:
        cloud, shoot = fleet.cloud, fleet.hub.shoot
        # Else an instance that is quick to switch itself off leaves nothing to order.
        fleet.machines.hang = self.order == "TerminateInstances"
        if not self.order:
            return
        look = Fault("DescribeInstances", done=True, then=shoot)
        then = (lambda: cloud.faults.append(look)) if self.verifying else shoot
        cloud.faults.append(Fault(self.order, done=self.done, then=then))


CRASHES = {
    "K1, not acknowledged": Death("after submit"),
    "K2": Death("before create"),
    "K2, order lost": Death(order="RunInstances"),
    "K3, order carried out": Death(order="RunInstances", done=True),
    "K3, answered": Death("after create"),
    "K4": Death("before attach"),
    "K5": Death("before lease"),
    "K6": Death("before start"),
    "K7": Death("after start_command"),
    "K8": Death("after update"),
    "K9": Death("before complete"),
    "K10": Death("before release"),
    "K11": Death("before destroy"),
    "K11, order lost": Death(order="TerminateInstances"),
    "K11, order carried out": Death(order="TerminateInstances", done=True),
    "K11, before verify": Death(order="TerminateInstances", done=True, verifying=True),
    "K11, verified": Death("after destroy"),
}
# One hub's life each: what one death leaves the next hub takes up, and dies of something else. A
# death on the way to an instance comes first or after one on the way to its end, else it might find
# nothing to start.
GOOD_DAYS = (
    ("K1, not acknowledged", "K11, order lost", "K2, order lost", "K3, order carried out"),
    ("K3, answered", "K11, order carried out", "K4", "K5"),
    ("K6", "K11", "K7", "K11, before verify"),
    ("K2", "K8", "K11, verified", "K9", "K10"),
)
BAD = Weather(hidden_s=2.0, stale_s=1.5, throttled_every=4, lying_every=2)
BAD_DAYS = (
    ("K2, order lost", "K3, order carried out", "K11, order carried out"),
    ("K3, answered", "K11, order lost", "K2", "K11, verified"),
)


@pytest.fixture(scope="module")
def cloud_url() -> Iterator[str]:
    with ec2.region() as url:
        yield url


def test_every_point_has_its_day() -> None:
    assert {name for day in GOOD_DAYS for name in day} == CRASHES.keys()


@pytest.mark.timeout(900)
async def test_K1_to_K11_crashes_at_any_point_leak_double_and_forget_no_instance(
    cloud_url: str, tmp_path: Path
) -> None:
    """Side by side, since each is mostly waiting for programs to start."""
    await _live(cloud_url, tmp_path, GOOD_DAYS, Weather())


@pytest.mark.timeout(900)
async def test_P1_P3_P4_K2_to_K11_nor_do_they_when_the_cloud_lags_throttles_and_lies(
    cloud_url: str, tmp_path: Path
) -> None:
    await _live(cloud_url, tmp_path, BAD_DAYS, BAD)


async def _live(
    cloud_url: str, directory: Path, days: Sequence[Sequence[str]], weather: Weather
) -> None:
    async def one(number: int, names: Sequence[str]) -> None:
        with fleet_at(cloud_url, directory, sys.executable, f"hub-{number}") as fleet:
            fleet.cloud.weather = weather
            day = Day(fleet)
            try:
                for name in names:
                    await day.crash(CRASHES[name])
                await day.end()
            except BaseException as error:
                error.add_note(f"the hub died at {', then at '.join(names[: day.deaths])}")
                error.add_note("\n".join(map(str, day.hub.log[-40:])))
                raise

    async with asyncio.TaskGroup() as group:
        for number, names in enumerate(days):
            group.create_task(one(number, names))


class Day:
    """A hub that dies again and again, each time with one build more."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.hub = fleet, fleet.hub
        self.hub.mortal = Path(__file__).parent / "mortal_ec2_hub.py"
        self.deaths = 0

    async def crash(self, death: Death) -> None:
        self.deaths += 1
        try:
            await asyncio.to_thread(self.fleet.start, dies_at=death.point)
        except HubDied:  # of what the last one left it, before it was ready
            return
        death.arrange(self.fleet)
        async with self.fleet.api() as api:
            # It may die in the middle of it, or of what the last one left it.
            with contextlib.suppress(httpx2.TransportError):
                if self.deaths == 1:
                    await self._define(api)
                await self._submit(api, self.deaths)
            await self.hub.died(PATIENCE_S)

    async def end(self) -> None:
        """Nothing is lost, doubled or left."""
        await asyncio.to_thread(self.fleet.start, dies_at=NEVER)
        async with self.fleet.api() as api:
            for number in range(1, self.deaths + 1):
                build = await self._submit(api, number)  # the same, by its key
                view = await api.ended(build, PATIENCE_S)
                assert (view["state"], view["attempts"]) == ("success", 1)
                assert await api.output(view["id"]) == b"run\n"
                assert self._runs(number).read_text() == "run\n"
            await self.hub.latent(api, "w")
            report = await api.post("/reconcile", {"drivers": ["ec2"]})
            assert (report["unanswered"], report["findings"]) == ([], [])
            assert self.fleet.leftovers() == []
            worker = await api.worker("w")
            assert worker["quarantine"] is None
            started = len(self.fleet.cloud.started_at)
            assert started <= worker["epoch"], "one at most for each intent"
        assert await asyncio.to_thread(self.hub.stop) == 0

    async def _define(self, api: Api) -> None:
        await self.fleet.define(api, "w", build_wait_timeout=0, check_instance_interval=0.5)

    async def _submit(self, api: Api, number: int) -> str:
        steps = [{"name": "s", "command": ["sh", "-c", f"echo run | tee -a {self._runs(number)}"]}]
        body = {"steps": steps, "requires": {"worker": "w"}}
        made = await api.post("/builds", body, **{"Idempotency-Key": str(number)})
        return str(made["id"])

    def _runs(self, number: int) -> Path:
        return self.hub.state_dir.with_suffix(f".{number}.runs")
