"""Whole builds on EC2 instances that boot, and what can befall them; nothing is left there."""

from __future__ import annotations

import asyncio
import base64
import re
import sys
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from e2e.api import until
from e2e.ec2_fleet import Fleet, running_at
from peers import ec2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from e2e.api import Api
    from e2e.gates import Gate
    from peers.ec2_machines import Machine

pytestmark = pytest.mark.peer("ec2-machines")


@pytest.fixture(scope="module")
def cloud_url() -> Iterator[str]:
    with ec2.region() as url:
        yield url


@pytest.fixture(scope="module")
def fleet(cloud_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_at(cloud_url, tmp_path_factory.mktemp("ec2")) as made:
        yield made


@pytest.fixture
async def api(fleet: Fleet) -> AsyncIterator[Api]:
    async with fleet.api() as made:
        yield made


async def test_a_build_on_an_instance_that_boots_from_the_order_to_terminated(
    fleet: Fleet, api: Api
) -> None:
    await fleet.define(api, "cloud-1")
    script = "pwd; echo $HOME; cat /proc/1/cmdline | tr '\\0' ' '; cat /proc/net/dev"
    build = await api.submit(["sh", "-c", script], worker="cloud-1")
    view = await api.ended(build)
    assert view["state"] == "success"
    output = (await api.output(build)).decode()
    instance = (await api.worker("cloud-1"))["instance"]
    assert output.startswith(f"/var/lib/hostler/{instance}/work")
    assert "\n/root\n" in output
    assert "ec2_init.py" in output, "the machine's processes are its own"
    assert re.findall(r"(\w+):", output)[-1:] == ["lo"], "and so is its network"
    assert fleet.machines.living() == set(fleet.living())
    # Warm: the next build takes the same instance.
    again = await api.ended(await api.submit(["true"], worker="cloud-1"))
    assert (again["state"], (await api.worker("cloud-1"))["epoch"]) == ("success", 1)
    await api.mode("cloud-1", "stopped")
    await fleet.hub.latent(api, "cloud-1")
    assert fleet.leftovers() == []


async def test_a_token_of_the_user_data_is_used_once_and_a_second_use_ends_the_instance(
    fleet: Fleet, api: Api, make_gate: Callable[[], Gate]
) -> None:
    """Any process of a build can read the user-data, and run it somewhere else."""
    gate = make_gate()
    await fleet.define(api, "victim", labels=["theft"])
    read = (
        "import urllib.request as u; s = 'http://169.254.169.254/latest/';"
        "t = u.urlopen(u.Request(s + 'api/token', method='PUT',"
        " headers={'X-aws-ec2-metadata-token-ttl-seconds': '60'})).read().decode();"
        "q = u.Request(s + 'user-data', headers={'X-aws-ec2-metadata-token': t});"
        "print(u.urlopen(q).read().decode())"
    )
    stolen = await api.submit([sys.executable, "-c", read], worker="victim")
    assert (await api.ended(stolen))["state"] == "success"
    user_data = await api.output(stolen)
    build = await api.submit(gate.command, requires={"labels": ["theft"]})
    await gate.entered()
    robbed = await fleet.machine_of(api, "victim")
    await fleet.define(api, "heir", labels=["theft"])

    elsewhere = _start_elsewhere(fleet, user_data)
    await gate.entered()
    gate.open()
    view = await api.ended(build)
    # On the heir, or on another instance of the victim where its quarantine was over sooner.
    assert (view["state"], view["attempts"]) == ("success", 2)
    for name in ("victim", "heir"):
        await api.mode(name, "stopped")
        await fleet.hub.latent(api, name)
    assert not robbed.lives
    (alarm,) = (await api.get("/incidents?worker=victim&kind=compromised"))["items"]
    assert "one-time token was used a second time" in alarm["reason"]
    token = base64.b64decode(re.findall(rb"> token <<'END'\n(.*?)\nEND", user_data, re.DOTALL)[0])
    assert not [line for line in fleet.hub.log if token.decode() in str(line)]
    assert fleet.living() == {}
    # The thief's own machine has been told to go away, and switched itself off.
    await asyncio.to_thread(elsewhere.switched_off)


def _start_elsewhere(fleet: Fleet, user_data: bytes) -> Machine:
    """Behind the hub's back: an instance without its marks."""
    keys = {"aws_access_key_id": "thief", "aws_secret_access_key": "thief"}
    client = boto3.client("ec2", region_name=ec2.REGION, endpoint_url=fleet.cloud.url, **keys)
    made = client.run_instances(ImageId=ec2.AMI, MinCount=1, MaxCount=1, UserData=user_data)
    client.close()
    return fleet.machines[made["Instances"][0]["InstanceId"]]


async def test_P16_a_spot_instance_drains_at_its_notice_and_its_build_runs_elsewhere(
    fleet: Fleet, api: Api, make_gate: Callable[[], Gate]
) -> None:
    gate = make_gate()
    await fleet.define(api, "spot", labels=["p16"], options={"spot": {"max_price": "0.05"}})
    build = await api.submit(gate.command, requires={"labels": ["p16"]})
    await gate.entered()
    machine = await fleet.machine_of(api, "spot")
    await fleet.define(api, "rescuer", labels=["p16"])

    machine.tell_of_interruption(left_s=33)  # 30 of them are the hub's to start another
    await gate.entered()
    gate.open()
    view = await api.ended(build)
    assert (view["state"], view["attempts"], view["worker"]) == ("success", 2, "rescuer")
    await fleet.hub.latent(api, "spot")
    assert not machine.lives
    await api.mode("rescuer", "stopped")
    await fleet.hub.latent(api, "rescuer")


async def test_P15_an_instance_that_somebody_terminates_costs_no_build(
    fleet: Fleet, api: Api, make_gate: Callable[[], Gate]
) -> None:
    gate = make_gate()
    await fleet.define(api, "mortal", labels=["p15"], check_instance_interval=0.5)
    build = await api.submit(gate.command, requires={"labels": ["p15"]})
    await gate.entered()
    (victim,) = fleet.living()
    await fleet.define(api, "heir", labels=["p15"])
    await api.mode("heir", "active")
    fleet.cloud.client().terminate_instances(InstanceIds=[victim])
    fleet.machines.halt(victim)
    await gate.entered()
    gate.open()
    view = await api.ended(build)
    assert (view["state"], view["attempts"], view["worker"]) == ("success", 2, "heir")
    for worker in ("mortal", "heir"):
        await api.mode(worker, "stopped")
        await fleet.hub.latent(api, worker)


async def define_apart(fleet: Fleet, api: Api, worker: str, **more: Any) -> None:
    """In a group of its own: in one, so many failed starts would open its breaker."""
    await api.post("/groups/define", {"groups": [{"name": worker}], "dry_run": False})
    await fleet.define(api, worker, group=worker, **more)


async def test_P7_P8_an_instance_whose_agent_does_not_come_is_told_with_its_console(
    fleet: Fleet, api: Api
) -> None:
    await define_apart(fleet, api, "mute", options={"python": "python9"}, missing_timeout=10)
    build = await api.submit(["true"], worker="mute")

    async def consoles() -> list[str]:
        kept = (await api.get("/workers/mute/evidence"))["items"]
        return [each["texts"].get("console", "") for each in kept]

    # Where that was not enough for a machine to say a word, the next one may be quicker.
    await until(consoles, lambda said: any("python9: not found" in each for each in said))
    await api.mode("mute", "stopped")  # else it is tried again in 10 s
    await fleet.hub.latent(api, "mute")
    assert fleet.leftovers() == []
    await api.cancel(build)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("InvalidAMIID.NotFound", "check option ami: images have another id in every region"),
        ("AuthFailure", "check the credentials (option credentials or profile)"),
        ("VcpuLimitExceeded", "have AWS raise the quota, or lower the group's max_instances"),
    ],
)
async def test_P5_the_decision_log_tells_what_ec2_refused_and_what_to_do(
    fleet: Fleet, api: Api, code: str, advice: str
) -> None:
    worker = f"refused-{code.lower().replace('.', '-')}"
    fleet.cloud.faults.append(ec2.Fault("RunInstances", code))
    await define_apart(fleet, api, worker)
    build = await api.submit(["true"], worker=worker)
    await fleet.hub.logged(worker=worker, before="insubstantiating", after="latent")
    await api.mode(worker, "stopped")  # else it is tried again in 10 s
    await fleet.hub.latent(api, worker)
    *_, decision = (await api.get(f"/decisions?worker={worker}&kind=quarantine"))["items"]
    assert f"ec2: start an instance: {code}: as ordered: {code} ({advice})" in decision["text"]
    assert decision["numbers"]["delay_s"] > 0, "it backs off"
    assert fleet.leftovers() == [], "and nothing stays behind"
    await api.cancel(build)
