"""Whole builds in containers, and what can befall them; nothing is left at the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from e2e.api import Api
from e2e.gates import Gate
from e2e.hub_process import HubDied, HubProcess
from peers import docker as peer

from hostler_hub.drivers.contract import InstanceSpec
from hostler_hub.drivers.docker import labels
from hostler_hub.runtime.ids import new_ulid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

pytestmark = pytest.mark.peer("docker")


class Fleet:
    """A hub and its containers at one daemon. Gates are mounted where they are here."""

    def __init__(self, hub: HubProcess, url: str, gates: Path) -> None:
        self.hub, self.url, self.gates = hub, url, gates
        self.id = ""

    def start(self, **options: Any) -> None:
        self.hub.start(**options)
        if self.id:  # it stays the same, and a hub that is to die may do so at once
            return
        with urllib.request.urlopen(f"{self.hub.url}/healthz") as answer:
            self.id = json.load(answer)["hub"]

    def api(self) -> Api:
        return Api(self.hub.url, self.hub.token)

    async def define(
        self, api: Api, *names: str, options: dict[str, Any] | None = None, **more: Any
    ) -> None:
        given = {
            "image": peer.IMAGE,
            "docker_host": self.url,
            "network_mode": "none",
            "volumes": [f"{self.gates}:{self.gates}"],
            **(options or {}),
        }
        await api.define(*names, driver="docker", driver_options=given, **more)

    def containers(self, worker: str | None = None) -> list[dict[str, Any]]:
        wanted = labels.of_hub(self.id)["label"]
        if worker is not None:
            wanted.append(f"{labels.MARK.worker}={worker}")
        with peer.client_of(self.url) as client:
            return list(client.containers(all=True, filters={"label": wanted}))

    def leftovers(self) -> list[str]:
        """All that carries the hub's mark."""
        with peer.client_of(self.url) as client:
            volumes = client.volumes(filters=labels.of_hub(self.id))["Volumes"] or []
            return [*(c["Names"][0] for c in self.containers()), *(v["Name"] for v in volumes)]

    def remove(self, worker: str) -> None:
        """docker rm -f, by somebody who is not the hub."""
        (container,) = self.containers(worker)
        with peer.client_of(self.url) as client:
            client.remove_container(container["Id"], v=True, force=True)

    def haunt(self, worker: str, instance: str) -> str:
        """A container that carries an instance's mark, and that the hub did not make; its id."""
        spec = InstanceSpec(worker, instance, 1, "", {})
        mark = labels.of(spec.mark(self.id))
        with peer.client_of(self.url) as client:
            made = client.create_container(
                peer.IMAGE, ["sleep", "1000"], name=labels.name(spec), labels=mark
            )
            return str(made["Id"])

    def close(self) -> None:
        """However the test ended."""
        self.hub.close()
        with peer.client_of(self.url) as client:
            for container in self.containers():
                client.remove_container(container["Id"], v=True, force=True)
            for volume in client.volumes(filters=labels.of_hub(self.id))["Volumes"] or []:
                client.remove_volume(volume["Name"])


@contextlib.contextmanager
def fleet_at(url: str, directory: Path, name: str = "hub") -> Iterator[Fleet]:
    """A fleet whose hub is not started yet."""
    gates = directory / "gates"
    gates.mkdir(exist_ok=True)
    # No pass of its own while a test counts what one finds.
    settings = {"docker_allow": f"bind={gates}", "reconcile_interval_s": "86400"}
    made = Fleet(HubProcess(directory / name, **settings), url, gates)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with peer.shared() as url:
        yield url


@pytest.fixture(scope="module")
def fleet(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """With a running hub; what it leaves behind is a failure. Workers' names are the tests' own."""
    with fleet_at(url, tmp_path_factory.mktemp("docker")) as made:
        made.start()
        yield made
        assert made.hub.stop() == 0
        assert made.leftovers() == []


@pytest.fixture
async def api(fleet: Fleet) -> AsyncIterator[Api]:
    async with fleet.api() as made:
        yield made


@pytest.fixture
def make_gate(fleet: Fleet) -> Iterator[Callable[[], Gate]]:
    made: list[Gate] = []

    def make() -> Gate:
        made.append(Gate(fleet.gates, f"gate-{len(made)}"))
        return made[-1]

    yield make
    for gate in made:
        gate.close()


async def test_a_build_in_a_container_that_has_no_network(fleet: Fleet, api: Api) -> None:
    await fleet.define(api, "box", options={"memory": "512m", "environment": {"FLAVOUR": "plain"}})
    show = "import os; print(os.environ['FLAVOUR'], open('/proc/1/comm').read().strip())"
    commands = (["python3", "-c", show], ["sh", "-c", "pwd; id -u; ls /sys/class/net"])
    view = await api.ended(await api.submit(*commands, worker="box"))
    assert view["state"] == "success"
    assert await api.output(view["id"]) == b"plain docker-init\n"
    where, who, networks = (await api.output(view["id"], 1)).decode().split("\n")[:3]
    assert where.startswith("/hostler/work")
    assert (who, networks) == ("0", "lo")
    worker = await api.worker("box")
    assert worker["state"] == "substantiated"
    # Warm: the next build takes the same container.
    again = await api.ended(await api.submit(["true"], worker="box"))
    assert (again["state"], (await api.worker("box"))["epoch"]) == ("success", 1)


# It double-forks a daemon in a session of its own that ignores SIGTERM.
ESCAPE = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.closerange(0, 3)  # else the step would give it 5 s (E8)
        time.sleep(1000)
    os._exit(0)
os.wait()
print("escaped", flush=True)
"""


async def test_E1_E2_nothing_of_a_job_survives_it_in_a_container(fleet: Fleet, api: Api) -> None:
    await fleet.define(api, "jail")
    first = await api.ended(await api.submit(["python3", "-c", ESCAPE], worker="jail"))
    assert first["state"] == "success"
    look = "ps -eo args 2>/dev/null || cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
    second = await api.ended(await api.submit(["sh", "-c", look], worker="jail"))
    assert b"time.sleep(1000)" not in await api.output(second["id"])
    # The slot came back clean, so the same container served both.
    worker = await api.worker("jail")
    assert (worker["epoch"], worker["quarantine"]) == (1, None)


async def test_P15_a_container_that_is_removed_costs_no_build(
    fleet: Fleet, api: Api, make_gate: Callable[[], Gate]
) -> None:
    """Idle: it is noticed and replaced. Leased: its build is run again elsewhere."""
    await fleet.define(api, "victim", labels=["p15"])
    warm_up = await api.ended(await api.submit(["true"], worker="victim"))
    assert warm_up["state"] == "success"
    await api.idle("victim")
    await asyncio.to_thread(fleet.remove, "victim")
    await fleet.hub.latent(api, "victim")
    assert (await api.worker("victim"))["quarantine"] is None

    gate = make_gate()
    build = await api.submit(gate.command, requires={"labels": ["p15"]})
    await gate.entered()
    await fleet.define(api, "rescuer", labels=["p15"])
    fleet.remove("victim")
    await gate.entered()
    gate.open()
    view = await api.ended(build)
    assert (view["state"], view["attempts"], view["worker"]) == ("success", 2, "rescuer")
    lost = await api.worker("victim")
    assert lost["epoch"] == 2
    reason = await api.quarantined("victim")
    assert "its instance is gone: docker: the container is" in reason


async def test_P7_a_container_that_ends_at_once_is_told_with_its_words(
    fleet: Fleet, api: Api
) -> None:
    await fleet.define(
        api,
        "stillborn",
        options={"python": "python9"},
        check_instance_interval=0.5,
    )
    build = await api.submit(["true"], worker="stillborn")
    await fleet.hub.logged(worker="stillborn", before="insubstantiating", after="latent")
    assert "has the image Python 3.9 or newer?" in await api.quarantined("stillborn")
    *_, kept = (await api.get("/workers/stillborn/evidence"))["items"]
    assert "python9" in kept["texts"]["console"]
    await api.cancel(build)


async def test_V2_what_the_ledger_saw_end_or_never_heard_of_is_removed(
    fleet: Fleet, api: Api
) -> None:
    await fleet.define(api, "haunted")
    build = await api.submit(["true"], worker="haunted")
    assert (await api.ended(build))["state"] == "success"
    ended = (await api.worker("haunted"))["instance"]
    await api.mode("haunted", "stopped")
    await fleet.hub.latent(api, "haunted")
    ghosts = {instance: fleet.haunt("haunted", instance) for instance in (ended, new_ulid())}

    report = await api.post("/reconcile", {"drivers": ["docker"]})
    assert report["unanswered"] == []
    done = {each["instance"]: (each["kind"], each["action"]) for each in report["findings"]}
    assert done[ended] == ("orphan", "destroy")
    assert [each["Id"] for each in fleet.containers("haunted")] == [list(ghosts.values())[1]]
    await api.post("/reconcile", {"drivers": ["docker"], "confirmed": True})
    assert fleet.containers("haunted") == []


async def test_what_leads_out_of_a_container_is_refused_with_the_word_that_allows_it(
    fleet: Fleet, api: Api
) -> None:
    await fleet.define(api, "greedy", options={"host_config": {"privileged": True}})
    build = await api.submit(["true"], worker="greedy")
    await fleet.hub.logged(worker="greedy", before="insubstantiating", after="latent")
    reason = await api.quarantined("greedy")
    assert "driver_options.host_config.privileged" in reason
    assert "HOSTLER_DOCKER_ALLOW=privileged" in reason
    await api.cancel(build)


async def test_G1_a_daemon_that_is_killed_takes_its_containers_and_no_build(
    tmp_path: Path,
) -> None:
    """live-restore is off: what ran is ended when the daemon comes back."""
    with peer.private() as daemon, fleet_at(daemon.url, tmp_path) as fleet:
        await asyncio.to_thread(fleet.start)
        gate = Gate(fleet.gates, "gate")
        async with fleet.api() as api:
            await fleet.define(api, "before", labels=["g1"], check_instance_interval=1)
            build = await api.submit(gate.command, requires={"labels": ["g1"]})
            await gate.entered()
            await fleet.define(api, "after", labels=["g1"])
            await asyncio.to_thread(daemon.kill)
            await asyncio.to_thread(daemon.start)
            await gate.entered()
            gate.open()
            view = await api.ended(build)
            assert (view["state"], view["attempts"], view["worker"]) == ("success", 2, "after")
            await fleet.hub.latent(api, "before")
        gate.close()
        assert await asyncio.to_thread(fleet.hub.stop) == 0
        assert fleet.leftovers() == []


POINTS = {
    "K2": "before make",
    "K3, made": "after make",
    "K3, filled in": "before start of it",
    "K4": "after start of it",
    "K5": "before attach",
    "K11, before the call": "before end",
    "K11, after it": "after end",
    "K11, before its volumes": "before volumes",
    "K11, after its volumes": "after volumes",
}
PATIENCE_S = 120  # agents whose hubs keep dying come back ever later
PAIRS = (
    ("after make", "before end"),
    ("after start of it", "after end"),
    ("before end", "before volumes"),
)


@pytest.mark.timeout(400)
async def test_K2_to_K11_a_crash_at_any_point_leaks_and_doubles_no_container(
    url: str, tmp_path: Path
) -> None:
    """Singly and in pairs, side by side, since each is mostly waiting for programs to start."""
    room = asyncio.Semaphore(4)

    async def crash(number: int, points: tuple[str, ...]) -> None:
        async with room:
            try:
                with fleet_at(url, tmp_path, f"hub-{number}") as fleet:
                    await _crash(fleet, points)
            except BaseException as error:
                error.add_note(f"the hub died {', then '.join(points)}")
                raise

    async with asyncio.TaskGroup() as crashes:
        singles = [(point,) for point in POINTS.values()]
        for number, points in enumerate([*singles, *PAIRS]):
            crashes.create_task(crash(number, points))


async def _crash(fleet: Fleet, points: tuple[str, ...]) -> None:
    hub = fleet.hub
    hub.mortal = Path(__file__).parent / "mortal_docker_hub.py"
    runs = fleet.gates / f"{hub.state_dir.name}.runs"

    async def submit(api: Api) -> str:
        return await api.submit(["sh", "-c", f"echo run | tee -a {runs}"], key="once")

    for point in points:
        with contextlib.suppress(HubDied):  # of what the last one left it, before it was ready
            await asyncio.to_thread(fleet.start, dies_at=point)
            if point == points[0]:
                async with fleet.api() as api:
                    await fleet.define(api, "w", build_wait_timeout=0)
                    with contextlib.suppress(httpx2.TransportError):  # it may die in the middle
                        await submit(api)
            await hub.died(PATIENCE_S)
    await asyncio.to_thread(fleet.start)
    async with fleet.api() as api:
        view = await api.ended(await submit(api), PATIENCE_S)
        build = view["id"]
        assert (view["state"], view["attempts"]) == ("success", 1)
        assert await api.output(build) == b"run\n"
        assert runs.read_text() == "run\n"
        await hub.latent(api, "w")
        assert fleet.leftovers() == []
        assert (await api.worker("w"))["quarantine"] is None
    assert await asyncio.to_thread(hub.stop) == 0
