"""Whole builds on machines reached by SSH, and what can befall them; nothing is left there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import psutil
import pytest
from e2e.api import Api, until
from e2e.gates import Gate
from e2e.hub_process import HubProcess
from peers.sshd import Sshd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.peer("sshd")


class Fleet:
    """A hub, and machines that all have their agents under one directory."""

    def __init__(self, hub: HubProcess, directory: Path) -> None:
        self.hub = hub
        self.directory = directory
        (hub.state_dir / "secrets").mkdir(parents=True)

    def options(self, sshd: Sshd, **changes: Any) -> dict[str, Any]:
        (self.hub.state_dir / "secrets" / sshd.directory.name).write_text(
            sshd.client_key.read_text()
        )
        return {
            "host": sshd.address,
            "port": sshd.port,
            "user": sshd.user,
            "key": {"file": sshd.directory.name},
            "host_key": sshd.public_host_key,
            "python": sys.executable,
            "directory": str(self.directory),
            **changes,
        }

    def api(self) -> Api:
        return Api(self.hub.url, self.hub.token)

    async def define(self, api: Api, *names: str, options: dict[str, Any], **more: Any) -> None:
        await api.define(*names, driver="ssh", driver_options=options, **more)

    def agents(self) -> list[psutil.Process]:
        return self.processes("--mark")

    def processes(self, *words: str) -> list[psutil.Process]:
        """All that run from the directory: agents, and what helps them; or those so called."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                arguments = process.cmdline()
                ours = str(self.directory) in " ".join(arguments)
                if ours and {*words} <= {*arguments} and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def leftovers(self) -> list[str]:
        """Processes, and what instances have left in the directory."""
        instances = self.directory / "instances"
        kept = [each for each in instances.glob("*") if each.suffix != ".lock"]
        return [*(str(process) for process in self.processes()), *map(str, kept)]

    async def assert_nothing_left(self) -> None:
        """Soon: what a hub has ordered that was killed, or stopped, may be on its last steps."""

        async def left() -> list[str]:
            return await asyncio.to_thread(self.leftovers)

        assert await until(left, lambda left: not left) == []

    def close(self) -> None:
        """However the test ended."""
        self.hub.close()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()


@pytest.fixture
def make_sshd(tmp_path: Path) -> Iterator[Callable[..., Sshd]]:
    made: list[Sshd] = []

    def make(*lines: str, **where: Any) -> Sshd:
        made.append(Sshd(tmp_path / f"sshd-{len(made)}", *lines, **where))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def make_fleet(tmp_path: Path) -> Iterator[Callable[[], Fleet]]:
    made: list[Fleet] = []

    def make() -> Fleet:
        number = len(made)
        made.append(Fleet(HubProcess(tmp_path / f"hub-{number}"), tmp_path / f"hostler-{number}"))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
async def fleet(make_fleet: Callable[[], Fleet]) -> AsyncIterator[Fleet]:
    """With a running hub; what it leaves behind is a failure."""
    made = make_fleet()
    await asyncio.to_thread(made.hub.start)
    yield made
    assert await asyncio.to_thread(made.hub.stop) == 0
    await made.assert_nothing_left()


async def test_builds_on_several_workers_of_one_machine(
    fleet: Fleet, make_sshd: Callable[..., Sshd]
) -> None:
    options = fleet.options(make_sshd(), environment={"FLAVOUR": "plain"})
    async with fleet.api() as api:
        await fleet.define(api, "one", "two", options=options, build_wait_timeout=0)
        builds = [
            await api.submit(["sh", "-c", "echo $FLAVOUR; pwd"], worker=worker)
            for worker in ("one", "two")
        ]
        outputs = []
        for build in builds:
            assert (await api.ended(build))["state"] == "success"
            outputs.append(await api.output(build))
        assert all(output.startswith(b"plain\n") for output in outputs)
        assert outputs[0] != outputs[1]
        for worker in ("one", "two"):
            await fleet.hub.latent(api, worker)
        assert len(list((fleet.directory / "agents").iterdir())) == 1


async def test_a_tunnel_outlives_drops_of_its_connection_and_kill_9_of_the_hub(
    make_fleet: Callable[[], Fleet], make_sshd: Callable[..., Sshd], make_gate: Callable[[], Gate]
) -> None:
    fleet, sshd, gate = make_fleet(), make_sshd(), make_gate()
    await asyncio.to_thread(fleet.hub.start)
    options = fleet.options(sshd, tunnel=True)
    async with fleet.api() as api:
        await fleet.define(api, "w", options=options, check_instance_interval=1)
        build = await api.submit(gate.command)
        await gate.entered()
        (agent,) = fleet.agents()
        config = next((fleet.directory / "instances").glob("*/agent.json")).read_text()
        assert f":{fleet.hub.port}/" not in config  # there is no other way than the tunnel
        await gate.send(b"before ")
        await asyncio.to_thread(sshd.drop)
        await gate.send(b"after ")
        await asyncio.to_thread(fleet.hub.kill)
    await asyncio.to_thread(fleet.hub.start)
    gate.open()
    async with fleet.api() as api:
        view = await api.ended(build)
        assert (view["state"], view["attempts"]) == ("success", 1)
        assert await api.output(build) == b"before after "
        assert fleet.agents() == [agent]
    assert await asyncio.to_thread(fleet.hub.stop) == 0
    await fleet.assert_nothing_left()


@pytest.fixture
def namespaces() -> Iterator[list[tuple[str, str]]]:
    """Two machines, as far as the network is concerned: (name, address).

    Not 10.213.*, which the bridges of the tests' Docker daemons have.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and ip: apt-get install iproute2")
    made = [(f"hostler-{os.getpid() % 10000}-{n}", n) for n in range(2)]
    probe = f"hostler-{os.getpid() % 10000}-probe"
    if subprocess.run(["ip", "netns", "add", probe], check=False).returncode != 0:
        pytest.skip("network namespaces cannot be made here")
    _ip("netns", "delete", probe)
    try:
        for name, n in made:
            link = f"hs{os.getpid() % 10000}n{n}"
            _ip("netns", "add", name)
            _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("addr", "add", f"10.214.{n}.1/24", "dev", link)
            _ip("link", "set", link, "up")
            _ip("-n", name, "addr", "add", f"10.214.{n}.2/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", name, "link", "set", device, "up")
        yield [(name, f"10.214.{n}.2") for name, n in made]
    finally:
        for name, _ in made:
            subprocess.run(["ip", "netns", "delete", name], check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


async def test_machines_that_cannot_reach_the_hub_build_through_tunnels(
    fleet: Fleet, make_sshd: Callable[..., Sshd], namespaces: list[tuple[str, str]]
) -> None:
    """The hub listens on its own loopback, which from another namespace is nowhere."""
    servers = [
        make_sshd(prefix=("ip", "netns", "exec", name), address=address)
        for name, address in namespaces
    ]
    async with fleet.api() as api:
        builds = []
        for number, sshd in enumerate(servers):
            await fleet.define(api, f"w{number}", options=fleet.options(sshd, tunnel=True))
            script = "echo $SSH_CLIENT; cat /proc/net/fib_trie"
            builds.append(await api.submit(["sh", "-c", script], worker=f"w{number}"))
        for build, (_, address) in zip(builds, namespaces, strict=True):
            assert (await api.ended(build))["state"] == "success"
            assert address.encode() in await api.output(build)
        await api.mode("w0", "stopped")
        await api.mode("w1", "stopped")
        for number in range(2):
            await fleet.hub.latent(api, f"w{number}")


async def test_G2_a_machine_that_refuses_us_quarantines_its_worker_with_the_reason(
    fleet: Fleet, make_sshd: Callable[..., Sshd]
) -> None:
    sshd = make_sshd()
    options = fleet.options(sshd)
    sshd.stop()
    sshd.change_host_key()
    sshd.start()
    async with fleet.api() as api:
        await fleet.define(api, "w", options=options)
        build = await api.submit(["true"])
        await fleet.hub.logged(worker="w", after="insubstantiating")
        await fleet.hub.latent(api, "w")  # nothing was sent, so there is nothing to wait for
        assert "another key than it is known by" in await api.quarantined("w")
        await api.cancel(build)


POINTS = {
    "K2, agent on its way": "before push",
    "K2, agent there": "after push",
    "K3, order on its way": "before answer to start",
    "K3": "after start of it",
    "K5": "before attach",
    "K11, before the call": "before destroy",
    "K11, order on its way": "before answer to stop",
}
PATIENCE_S = 120  # agents whose hubs keep dying come back ever later
PAIRS = (
    ("after start of it", "after end"),
    ("before answer to start", "before answer to stop"),
)


@pytest.mark.timeout(400)
async def test_K2_to_K11_a_crash_at_any_point_leaks_and_doubles_no_agent(
    make_fleet: Callable[[], Fleet], make_sshd: Callable[..., Sshd]
) -> None:
    """Singly and in pairs, side by side, since each is mostly waiting for programs to start."""
    room = asyncio.Semaphore(4)
    sshd = make_sshd("MaxStartups 100")

    async def crash(points: tuple[str, ...]) -> None:
        async with room:
            try:
                await _crash(make_fleet(), sshd, points)
            except BaseException as error:
                error.add_note(f"the hub died {', then '.join(points)}")
                raise

    async with asyncio.TaskGroup() as crashes:
        for points in [*((point,) for point in POINTS.values()), *PAIRS]:
            crashes.create_task(crash(points))


async def _crash(fleet: Fleet, sshd: Sshd, points: tuple[str, ...]) -> None:
    hub = fleet.hub
    hub.mortal = Path(__file__).parent / "mortal_ssh_hub.py"
    runs = hub.state_dir.with_suffix(".runs")

    async def submit(api: Api) -> str:
        return await api.submit(["sh", "-c", f"echo run | tee -a {runs}"], key="once")

    for point in points:
        await asyncio.to_thread(hub.start, dies_at=point)
        if point == points[0]:
            async with fleet.api() as api:
                options = fleet.options(sshd)
                await fleet.define(api, "w", options=options, build_wait_timeout=0)
                with contextlib.suppress(httpx2.TransportError):  # it may die in the middle
                    await submit(api)
        await hub.died(PATIENCE_S)
    await asyncio.to_thread(hub.start)
    async with fleet.api() as api:
        build = await submit(api)  # the same, by its key
        view = await api.ended(build, PATIENCE_S)
        assert (view["state"], view["attempts"]) == ("success", 1)
        assert await api.output(build) == b"run\n"
        assert runs.read_text() == "run\n"
        await hub.latent(api, "w")
        await fleet.assert_nothing_left()
    assert await asyncio.to_thread(hub.stop) == 0
