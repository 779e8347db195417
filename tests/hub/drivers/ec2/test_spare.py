"""Machines that are stopped at the end of an instance and started again for the next one."""

from __future__ import annotations

import base64
import email
import json
import subprocess
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from conformance.drivers import ref_of, spec_of
from peers.ec2 import Ec2, Fault

from hostler_hub.drivers.contract import Environment, InstanceRef, InstanceSpec
from hostler_hub.drivers.ec2 import Ec2Driver, spare, terminate
from hostler_hub.drivers.ec2.request import user_data
from hostler_hub.drivers.errors import OptionsRefused, ProviderFailed
from hostler_hub.drivers.registry import check_options
from hostler_hub.lifecycle.model import Presence

RECIPE = "hostler:recipe"


@pytest.fixture
def options(ec2_options: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**ec2_options, "at_end": "stop"}


@pytest.fixture
async def driver(ec2_environment: Environment, ec2: Ec2) -> AsyncIterator[Ec2Driver]:
    made = Ec2Driver(ec2_environment)
    yield made
    await made.aclose()
    ec2.faults.clear()
    if left := list(ec2.living(ec2_environment.hub)):
        ec2.client().terminate_instances(InstanceIds=left)


async def kept(
    driver: Ec2Driver, options: Mapping[str, Any], epoch: int = 1
) -> tuple[InstanceSpec, Mapping[str, Any]]:
    """An instance that has ended, its machine stopped."""
    spec = spec_of(options, epoch=epoch)
    handle = await driver.create(spec)
    assert await driver.keep(ref_of(spec, handle))
    return spec, handle


def asked(ec2: Ec2, operation: str) -> list[dict[str, str]]:
    return [query for name, query in ec2.calls if name == operation]


async def test_the_next_instance_is_the_same_machine_told_anew(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    first, handle = await kept(driver, options)
    assert ec2.state(handle["id"]) == "stopped"
    assert (await driver.inspect(ref_of(first, handle))).presence is Presence.GONE
    (owned,) = await driver.list_owned([options])
    assert (owned.instance, owned.epoch) == (first.instance, 1)
    assert owned.spare == Ec2Driver.options_model.model_validate(options).recipe

    second = spec_of(options, epoch=2)
    assert await driver.create(second) == handle
    assert ec2.state(handle["id"]) == "running"
    assert ec2.operations().index("ModifyInstanceAttribute") < ec2.operations().index(
        "StartInstances"
    )
    (owned,) = await driver.list_owned([options])
    assert (owned.instance, owned.epoch, owned.spare) == (second.instance, 2, "")
    assert (await driver.inspect(ref_of(second, None))).presence is Presence.RUNNING
    of_first = await driver.inspect(ref_of(first, handle))
    assert of_first.presence is Presence.GONE
    assert "a later instance's" in of_first.evidence
    (told,) = asked(ec2, "ModifyInstanceAttribute")
    text = base64.b64decode(told["UserData.Value"]).decode()
    assert base64.b64encode(second.token.encode()).decode() in text
    assert second.instance in text
    assert first.instance not in text
    assert len(asked(ec2, "RunInstances")) == 1
    await driver.destroy(ref_of(second, handle))
    assert await driver.list_owned([options]) == []


async def test_a_destroyed_instance_is_not_kept_nor_one_that_was_not_to_be(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    spec = spec_of(options)
    handle = await driver.create(spec)
    await driver.destroy(ref_of(spec, handle))
    plain = spec_of({**options, "at_end": "terminate"})
    other = await driver.create(plain)
    assert not await driver.keep(ref_of(plain, other))
    # It was started as one that goes: nothing of its boot would happen again.
    changed = spec_of({**options, "at_end": "terminate"})
    third = await driver.create(changed)
    assert not await driver.keep(replace(ref_of(changed, third), options=options))
    assert {ec2.state(each["id"]) for each in (handle, other, third)} == {"terminated"}


async def test_K11_a_stopped_machine_is_terminated_by_whoever_destroys_its_instance_again(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    """As a hub does that died before it knew that it had been stopped."""
    spec, handle = await kept(driver, options)
    await driver.destroy(ref_of(spec, handle))
    assert ec2.state(handle["id"]) == "terminated"


async def test_P13_a_stop_that_fails_but_was_done_is_seen_to_be_done(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    ec2.faults.append(Fault("CreateTags", "InternalError", 500, done=True))
    ec2.faults.append(Fault("StopInstances", "InternalError", 500, done=True))
    _, handle = await kept(driver, options)
    assert ec2.state(handle["id"]) == "stopped"
    assert len(asked(ec2, "StopInstances")) == 1


async def test_P1_a_start_that_fails_but_was_done_starts_one(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    _, handle = await kept(driver, options)
    for operation in ("ModifyInstanceAttribute", "CreateTags", "StartInstances"):
        ec2.faults.append(Fault(operation, "InternalError", 500, done=True))
    assert await driver.create(spec_of(options, epoch=2)) == handle
    assert ec2.state(handle["id"]) == "running"
    assert len(asked(ec2, "RunInstances")) == 1


async def test_P13_a_stop_that_does_not_end_is_told(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(options)
    handle = await driver.create(spec)
    monkeypatch.setattr(spare, "GONE_WITHIN_S", 0.05)
    ec2.faults.append(Fault("StopInstances", "InternalError", 500, times=99))
    with pytest.raises(ProviderFailed, match="is running, not stopped"):
        await driver.keep(ref_of(spec, handle))
    await driver.destroy(ref_of(spec, handle))


async def test_what_cannot_be_stopped_is_told_with_the_option(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    spec = spec_of(options)
    handle = await driver.create(spec)
    ec2.faults.append(Fault("StopInstances", "UnsupportedOperation"))
    with pytest.raises(OptionsRefused, match=r"UnsupportedOperation: .*EBS root .*option at_end"):
        await driver.keep(ref_of(spec, handle))


async def test_P5_without_room_for_the_stopped_machine_another_is_started_and_it_stays(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    first, handle = await kept(driver, options)
    ec2.faults.append(Fault("StartInstances", "InsufficientInstanceCapacity", 500))
    second = spec_of(options, epoch=2)
    other = await driver.create(second)
    assert other != handle
    listed = {each.name: each for each in await driver.list_owned([options])}
    assert (listed[handle["id"]].instance, listed[handle["id"]].epoch) == (first.instance, 1)
    assert listed[handle["id"]].spare
    assert listed[other["id"]].instance == second.instance
    assert (await driver.inspect(ref_of(second, None))).handle == other
    # Of two that wait the newer one is taken.
    assert await driver.keep(ref_of(second, other))
    assert await driver.create(spec_of(options, epoch=3)) == other


async def test_a_refused_claim_is_told_and_costs_nothing(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    first, _ = await kept(driver, options)
    ec2.faults.append(Fault("ModifyInstanceAttribute", "UnauthorizedOperation", 403))
    second = spec_of(options, epoch=2)
    with pytest.raises(OptionsRefused, match=r"user-data: UnauthorizedOperation.*permission"):
        await driver.create(second)
    await driver.destroy(ref_of(second, None))  # at once: it was never made
    (owned,) = await driver.list_owned([options])
    assert (owned.instance, bool(owned.spare)) == (first.instance, True)


async def test_one_that_somebody_started_meanwhile_is_left_alone(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    _, handle = await kept(driver, options)
    ec2.faults.append(Fault("ModifyInstanceAttribute", "IncorrectInstanceState"))
    assert (await driver.create(spec_of(options, epoch=2)))["id"] != handle["id"]
    ec2.client().start_instances(InstanceIds=[handle["id"]])
    (own,) = (each for each in await driver.list_owned([options]) if each.name == handle["id"])
    assert own.spare == "", "it runs: an orphan"


async def test_K3_claimed_and_not_started_is_no_instance_and_is_ended_as_one(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any], ec2_environment: Environment
) -> None:
    """What a hub leaves that dies between the claim and the start."""
    _, handle = await kept(driver, options)
    ec2.faults.append(Fault("StartInstances", "InternalError", 500, times=9))
    second = spec_of(options, epoch=2)
    with pytest.raises(ProviderFailed):
        await driver.create(second)
    later = Ec2Driver(ec2_environment)
    seen = await later.inspect(ref_of(second, None))
    assert (seen.presence, "not started" in seen.evidence) == (Presence.GONE, True)
    (owned,) = await later.list_owned([options])
    assert (owned.instance, owned.spare) == (second.instance, "")
    await later.destroy(ref_of(second, None))
    assert ec2.state(handle["id"]) == "terminated"
    await later.aclose()


async def test_who_ends_what_was_a_spare_does_not_end_what_was_made_of_it(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    """Reconcile has listed it, and a build was faster."""
    await kept(driver, options)
    (owned,) = await driver.list_owned([options])
    second = spec_of(options, epoch=2)
    handle = await driver.create(second)
    await driver.destroy(InstanceRef(owned.worker, owned.instance, owned.epoch, owned.handle, {}))
    assert ec2.state(handle["id"]) == "running"
    # And the other way round: what is being ended is not taken up.
    assert await driver.keep(ref_of(second, handle))
    (owned,) = await driver.list_owned([options])
    ec2.faults.append(Fault("TerminateInstances", "UnauthorizedOperation"))
    ref = InstanceRef(owned.worker, owned.instance, owned.epoch, owned.handle, {})
    with pytest.raises(OptionsRefused):
        await driver.destroy(ref)
    assert (await driver.create(spec_of(options, epoch=3)))["id"] != handle["id"]


async def test_P3_tags_that_are_shown_late_mislead_nobody(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any], ec2_environment: Environment
) -> None:
    """As EC2 may show them for seconds: those of the instance before."""
    first, handle = await kept(driver, options)
    second = spec_of(options, epoch=2)
    await driver.create(second)
    old = [
        {"Key": "hostler:instance", "Value": first.instance},
        {"Key": "hostler:epoch", "Value": "1"},
    ]
    ec2.client().create_tags(Resources=[handle["id"]], Tags=old)
    assert [each.instance for each in await driver.list_owned([options])] == [second.instance]
    later = Ec2Driver(ec2_environment)  # which does not remember what it has set
    assert (await later.inspect(ref_of(second, handle))).presence is Presence.RUNNING
    await later.destroy(ref_of(second, handle))
    assert ec2.state(handle["id"]) == "terminated"
    await later.aclose()


async def test_a_machine_made_otherwise_is_not_taken_up(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    _, handle = await kept(driver, options)
    changed = {**options, "instance_types": ["m5.large"]}
    assert (await driver.create(spec_of(changed, epoch=2)))["id"] != handle["id"]
    (own,) = (each for each in await driver.list_owned([changed]) if each.name == handle["id"])
    assert own.spare not in ("", Ec2Driver.options_model.model_validate(changed).recipe)


async def test_a_machine_of_an_image_that_there_is_a_newer_one_of_goes(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {key: value for key, value in options.items() if key != "ami"}
    image = {"owners": ["099720109477"], "name": "ubuntu/images/hvm-ssd/ubuntu-*"}
    by_name = {**plain, "image": image}
    _, handle = await kept(driver, by_name)
    second = spec_of(by_name, epoch=2)
    assert await driver.create(second) == handle, "still the newest"
    assert await driver.keep(ref_of(second, handle))

    async def newer(*_: object) -> str:
        return "ami-0000000000newer"

    monkeypatch.setattr(spare, "newest_image", newer)
    assert (await driver.create(spec_of(by_name, epoch=3)))["id"] != handle["id"]
    assert ec2.state(handle["id"]) == "terminated"


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"python": "python3.12"}, True),
        ({"hub_url": "wss://other.example.org"}, True),
        ({"orphan_timeout_s": 60}, True),
        ({"ami": "ami-0123456789abcdef0"}, False),
        ({"instance_types": ["t3.micro", "t3.small"]}, False),
        ({"subnets": ["subnet-1"]}, False),
        ({"volumes": [{"device": "/dev/sda1", "size_gib": 9}]}, False),
        ({"region": "eu-central-1"}, False),
        ({"endpoint_url": "http://127.0.0.1:9"}, False),
        ({"tags": {"team": "tools"}}, False),
    ],
)
def test_a_recipe_is_what_the_machine_is_made_of(
    options: Mapping[str, Any], change: Mapping[str, Any], same: bool
) -> None:
    model = Ec2Driver.options_model
    before, after = model.model_validate(options), model.model_validate({**options, **change})
    assert (before.recipe == after.recipe) is same
    assert model.model_validate({**options, "at_end": "terminate"}).recipe == ""


def test_spot_instances_cannot_be_stopped(options: Mapping[str, Any]) -> None:
    with pytest.raises(OptionsRefused, match="at_end: stop does not go with spot"):
        check_options(Ec2Driver, {**options, "spot": {}})


def test_the_script_of_every_boot_is_one_that_sh_understands(
    ec2_environment: Environment, options: Mapping[str, Any]
) -> None:
    model = Ec2Driver.options_model.model_validate(options)
    message = email.message_from_string(user_data(ec2_environment, spec_of(options), model))
    text = message.get_payload()[1].get_payload()
    checked = subprocess.run(["sh", "-n"], input=text.encode(), check=False)
    assert checked.returncode == 0
    assert text.startswith("#!/bin/sh\n")


async def test_what_every_boot_is_told(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    spec = spec_of(options)
    await driver.create(spec)
    (made,) = asked(ec2, "RunInstances")
    assert made["InstanceInitiatedShutdownBehavior"] == "terminate", "the dead-man's switch"
    message = email.message_from_bytes(base64.b64decode(made["UserData"]))
    config, script = message.get_payload()
    assert config.get_content_type() == "text/cloud-config"
    assert config.get_payload().splitlines() == [
        "#cloud-config",
        "cloud_final_modules:",
        "- [scripts-user, always]",
    ]
    assert script.get_content_type() == "text/x-shellscript"
    text = script.get_payload()
    encoded = text.split("agent.json <<'END'\n")[1].split("\nEND")[0]
    assert json.loads(base64.b64decode(encoded))["at_end"] == "poweroff_if_orphaned"
    windows = spec_of({**options, "system": "windows"}, epoch=2)
    await driver.create(windows)
    said = base64.b64decode(asked(ec2, "RunInstances")[1]["UserData"]).decode()
    assert said.endswith("</powershell>\n<persist>true</persist>\n")


async def test_only_its_own_worker_takes_it_up(
    driver: Ec2Driver, options: Mapping[str, Any]
) -> None:
    _, handle = await kept(driver, options)
    stranger = spec_of(options, worker="w-2")
    assert (await driver.create(stranger))["id"] != handle["id"]


async def test_P14_one_that_ends_while_it_is_stopped_is_seen_to_its_end(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its agent may have switched it off, say, or somebody terminated it."""
    spec = spec_of(options)
    handle = await driver.create(spec)
    states = iter([("running", ""), ("running", "")])
    with monkeypatch.context() as context:
        context.setattr(spare, "state_of", lambda _: next(states, ("shutting-down", "")))
        ec2.faults.append(Fault("StopInstances", "IncorrectInstanceState"))
        assert not await driver.keep(ref_of(spec, handle))
    assert terminate.state_of({"State": {"Name": ec2.state(handle["id"])}})[0] == "terminated"
