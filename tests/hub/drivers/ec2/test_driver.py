"""The EC2 driver, against moto behind a proxy that lags, throttles and lies."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import moto.ec2
import pytest
from conformance.drivers import Conformance, ref_of, spec_of
from peers.ec2 import Ec2, Fault

from hostler_hub.drivers.contract import Environment, InstanceRef
from hostler_hub.drivers.ec2 import Ec2Driver, terminate, userdata
from hostler_hub.drivers.ec2 import driver as driver_module
from hostler_hub.drivers.ec2.throttle import Bucket
from hostler_hub.drivers.errors import OptionsRefused, ProviderFailed
from hostler_hub.drivers.registry import check_options
from hostler_hub.lifecycle.model import Presence
from hostler_hub.runtime.ids import new_ulid

PAGE = "https://hub.example.org"


@pytest.fixture
def options(ec2_options: Mapping[str, Any]) -> Mapping[str, Any]:
    return ec2_options


@pytest.fixture
def equipped(ec2_environment: Environment) -> Environment:
    return ec2_environment


@pytest.fixture
async def driver(equipped: Environment) -> AsyncIterator[Ec2Driver]:
    made = Ec2Driver(equipped)
    yield made
    await made.aclose()


@pytest.fixture
async def other_hub_driver(
    other_environment: Environment,
    ec2_environment: Environment,
    equip: Callable[[Environment], Environment],
) -> AsyncIterator[Ec2Driver]:
    made = Ec2Driver(replace(equip(other_environment), secrets=ec2_environment.secrets))
    yield made
    await made.aclose()


def long_ago() -> str:
    """An instance of eleven minutes ago: EC2 would show it by now."""
    return new_ulid(int((time.time() - 660) * 1000))


class TestConformance(Conformance):
    async def test_K2_what_never_was_is_gone_and_can_be_destroyed(
        self, driver: Any, options: Mapping[str, Any]
    ) -> None:
        """Only once EC2 would show it: until then nothing is proven."""
        fresh = spec_of(options)
        assert (await driver.inspect(ref_of(fresh, None))).presence is Presence.UNKNOWN
        with pytest.raises(ProviderFailed, match="not visible yet"):
            await driver.destroy(ref_of(fresh, None))
        old = replace(fresh, instance=long_ago())
        assert (await driver.inspect(ref_of(old, None))).presence is Presence.GONE
        await driver.destroy(ref_of(old, None))


def started(ec2: Ec2) -> list[dict[str, str]]:
    return [query for operation, query in ec2.calls if operation == "RunInstances"]


async def test_what_is_asked_for(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any], equipped: Environment
) -> None:
    more = {
        "spot": {"max_price": "0.05"},
        "tags": {"team": "tools"},
        "volumes": [{"device": "/dev/sda1", "size_gib": 40}],
        "key_name": None,
    }
    spec = spec_of({**options, **more}, worker="build-7", epoch=3)
    handle = await driver.create(spec)
    (asked,) = started(ec2)
    assert asked["ClientToken"] == f"{spec.instance}.3.1"
    assert asked["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert asked["MetadataOptions.HttpTokens"] == "required"
    assert asked["MetadataOptions.HttpPutResponseHopLimit"] == "1"
    assert asked["InstanceMarketOptions.SpotOptions.MaxPrice"] == "0.05"
    assert asked["BlockDeviceMapping.1.Ebs.DeleteOnTermination"] == "true"
    tags = {
        asked[f"TagSpecification.1.Tag.{number}.Key"]: asked[
            f"TagSpecification.1.Tag.{number}.Value"
        ]
        for number in range(1, 7)
    }
    assert tags == {
        "Name": "hostler build-7",
        "team": "tools",
        "hostler:hub": equipped.hub,
        "hostler:instance": spec.instance,
        "hostler:epoch": "3",
        "hostler:worker": "build-7",
    }
    script = base64.b64decode(asked["UserData"]).decode()
    assert spec.token not in script, "the token stands there in another form only"
    assert base64.b64encode(spec.token.encode()).decode() in script
    assert f"https://hub.example.org/api/v1/agents/archive/{equipped.archive.sha256}" in script
    await driver.destroy(ref_of(spec, handle))


async def test_P1_done_but_said_to_have_failed_starts_one(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    ec2.faults.append(Fault("RunInstances", "InternalError", 504, done=True))
    ec2.faults.append(Fault("DescribeInstances", hidden=True, times=2))  # and not shown yet
    spec = spec_of(options)
    handle = await driver.create(spec)
    assert [asked["ClientToken"] for asked in started(ec2)] == [f"{spec.instance}.1.1"] * 2
    assert [owned.name for owned in await driver.list_owned([options])] == [handle["id"]]
    await driver.destroy(ref_of(spec, handle))


@pytest.mark.parametrize("code", ["IdempotentParameterMismatch", "IdempotentInstanceTerminated"])
async def test_P2_a_spent_token_is_replaced_by_the_next(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any], code: str
) -> None:
    ec2.faults.append(Fault("RunInstances", code))
    spec = spec_of(options)
    handle = await driver.create(spec)
    tokens = [asked["ClientToken"] for asked in started(ec2)]
    assert tokens == [f"{spec.instance}.1.1", f"{spec.instance}.1.2"]
    await driver.destroy(ref_of(spec, handle))


async def test_P3_not_found_just_after_the_start_is_unknown(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    spec = spec_of(options)
    handle = await driver.create(spec)
    for fault in (
        Fault("DescribeInstances", "InvalidInstanceID.NotFound"),
        Fault("DescribeInstances", hidden=True),
    ):
        ec2.faults.append(fault)
        seen = await driver.inspect(ref_of(spec, handle))
        assert seen.presence is Presence.UNKNOWN
        assert "proves nothing" in seen.evidence
    assert (await driver.inspect(ref_of(spec, handle))).presence is Presence.RUNNING
    await driver.destroy(ref_of(spec, handle))


async def test_P4_throttled_calls_are_made_again(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    ec2.faults.append(Fault("RunInstances", "RequestLimitExceeded", 503, times=3))
    spec = spec_of(options)
    handle = await driver.create(spec)
    assert len(started(ec2)) == 4
    assert len({asked["ClientToken"] for asked in started(ec2)}) == 1
    await driver.destroy(ref_of(spec, handle))


async def test_P5_the_next_type_is_tried_when_there_is_no_room(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    ec2.faults.append(Fault("RunInstances", "InsufficientInstanceCapacity", 500))
    spec = spec_of({**options, "instance_types": ["c7i.large", "t3.micro"]})
    handle = await driver.create(spec)
    assert [asked["InstanceType"] for asked in started(ec2)] == ["c7i.large", "t3.micro"]
    await driver.destroy(ref_of(spec, handle))


async def test_P5_no_room_at_all_is_said_with_the_providers_words_and_nothing_stays(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    ec2.faults.append(Fault("RunInstances", "VcpuLimitExceeded", times=9))
    spec = spec_of(options)
    with pytest.raises(ProviderFailed, match=r"t3.micro: .*as ordered: VcpuLimitExceeded"):
        await driver.create(spec)
    await driver.destroy(ref_of(spec, None))  # at once: it was never made


async def test_P14_shutting_down_is_not_gone(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(options)
    handle = await driver.create(spec)
    current = ["shutting-down"]
    with monkeypatch.context() as context:
        for module in (driver_module, terminate):
            context.setattr(module, "state_of", lambda _found: (current[0], ""))
        assert (await driver.inspect(ref_of(spec, handle))).presence is Presence.UNKNOWN
        context.setattr(terminate, "GONE_WITHIN_S", 0.05)
        with pytest.raises(ProviderFailed, match="shutting-down, not terminated"):
            await driver.destroy(ref_of(spec, handle))
        current[0] = "terminated"
        await driver.destroy(ref_of(spec, handle))
    await driver.destroy(ref_of(spec, handle))


async def test_P13_a_terminate_that_fails_but_was_done_is_seen_to_be_done(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    spec = spec_of(options)
    handle = await driver.create(spec)
    ec2.faults.append(Fault("TerminateInstances", "InternalError", 500, done=True))
    await driver.destroy(ref_of(spec, handle))
    assert ec2.operations().count("TerminateInstances") == 1


async def test_P15_terminated_from_outside_is_gone_with_its_reason(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    spec = spec_of(options)
    handle = await driver.create(spec)
    ec2.client().terminate_instances(InstanceIds=[handle["id"]])
    seen = await driver.inspect(ref_of(spec, handle))
    assert seen.presence is Presence.GONE
    assert "terminated" in seen.evidence


async def test_P6_a_list_that_fails_is_no_empty_list(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    ec2.faults.append(Fault("DescribeInstances", "UnauthorizedOperation", 403))
    with pytest.raises(OptionsRefused, match=r"list instances: UnauthorizedOperation.*permission"):
        await driver.list_owned([options])


async def test_each_region_is_asked_once_however_many_workers_name_it(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    other = {**options, "instance_types": ["m7i.large"]}
    await driver.list_owned([options, other, {**options, "region": "us-east-1"}])
    assert ec2.operations() == ["DescribeInstances"] * 2


async def test_an_orphan_is_destroyed_by_its_handle_alone(
    driver: Ec2Driver, options: Mapping[str, Any]
) -> None:
    spec = spec_of(options)
    await driver.create(spec)
    (owned,) = await driver.list_owned([options])
    await driver.destroy(InstanceRef(owned.worker, owned.instance, owned.epoch, owned.handle, {}))
    assert await driver.list_owned([options]) == []


async def test_evidence_is_the_console_and_the_state(
    driver: Ec2Driver, options: Mapping[str, Any]
) -> None:
    spec = spec_of(options)
    handle = await driver.create(spec)
    texts = await driver.evidence(ref_of(spec, handle))
    assert texts["state"] == "running"
    assert "console" in texts
    await driver.destroy(ref_of(spec, handle))


async def test_the_newest_image_of_an_owner_is_taken(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any]
) -> None:
    image = {"owners": ["099720109477"], "name": "ubuntu/images/hvm-ssd/ubuntu-*"}
    plain = {key: value for key, value in options.items() if key != "ami"}
    spec = spec_of({**plain, "image": image})
    handle = await driver.create(spec)
    assert started(ec2)[0]["ImageId"].startswith("ami-")
    await driver.destroy(ref_of(spec, handle))
    nothing = {"owners": ["099720109477"], "name": "no such thing"}
    with pytest.raises(OptionsRefused, match=r"option image: no image of 099720109477"):
        await driver.create(spec_of({**plain, "image": nothing}))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("AuthFailure", "check the credentials"),
        ("InvalidAMIID.NotFound", "check option ami"),
        ("InvalidSubnetID.NotFound", "check option subnets"),
        ("UnauthorizedOperation", "give the hub's role or user the permission"),
        ("InvalidClientTokenId", "check the access key"),
        ("SignatureDoesNotMatch", "check the secret key"),
    ],
)
async def test_a_mistake_is_told_with_what_to_do_and_leaves_nothing(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any], code: str, words: str
) -> None:
    ec2.faults.append(Fault("RunInstances", code))
    spec = spec_of(options)
    with pytest.raises(OptionsRefused, match=rf"ec2: start an instance: {code}.*{words}"):
        await driver.create(spec)
    await driver.destroy(ref_of(spec, None))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("VcpuLimitExceeded", r"have AWS raise the quota"),
        ("InstanceLimitExceeded", r"have AWS raise the quota"),
        ("InsufficientInstanceCapacity", r"name more in options instance_types and subnets"),
        ("SpotMaxPriceTooLow", r"raise option spot.max_price"),
    ],
)
async def test_P5_what_is_used_up_is_told_with_what_to_do_and_leaves_nothing(
    driver: Ec2Driver, ec2: Ec2, options: Mapping[str, Any], code: str, words: str
) -> None:
    ec2.faults.append(Fault("RunInstances", code, times=2))
    spec = spec_of({**options, "instance_types": ["c7i.large", "t3.micro"]})
    each = rf"{code}: as ordered: {code} \({words}.*\)"
    told = rf"ec2: no room .*c7i\.large: ec2: start an instance: {each}; t3\.micro: .*{each}"
    with pytest.raises(ProviderFailed, match=told):
        await driver.create(spec)
    await driver.destroy(ref_of(spec, None))


async def test_a_profile_that_is_not_there_is_named(
    driver: Ec2Driver, options: Mapping[str, Any]
) -> None:
    plain = {key: value for key, value in options.items() if key != "credentials"}
    with pytest.raises(OptionsRefused, match=r"nobody.* \(check option profile"):
        await driver.create(spec_of({**plain, "profile": "nobody"}))


async def test_a_secret_that_is_not_there_is_named(
    environment: Environment, equip: Any, options: Mapping[str, Any]
) -> None:
    made = Ec2Driver(equip(environment))
    with pytest.raises(OptionsRefused, match=r"credentials: .*HOSTLER_SECRET_AWS_ID"):
        await made.create(spec_of(options))
    await made.aclose()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ami": None}, "ami .* or image"),
        ({"image": {"owners": ["self"], "name": "x"}}, "one of the two"),
        ({"region": "evil.example/"}, "region"),
        ({"region": "a@b"}, "region"),
        ({"instance_types": ["t3.micro, t3.small"]}, "instance_types"),
        ({"spot": {"max_price": "0,05"}}, "max_price"),
        ({"instance_types": []}, "instance_types"),
        ({"tags": {"hostler:hub": "x"}}, "reserved"),
        ({"profile": "x"}, "not both"),
        ({"credentials": {"access_key": "AKIA", "secret_key": "x"}}, "credentials"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: Mapping[str, Any], change: Mapping[str, Any], words: str
) -> None:
    with pytest.raises(OptionsRefused, match=words):
        check_options(Ec2Driver, {**options, **change})


def test_the_world_s_names_are_the_provider_s_own(options: Mapping[str, Any]) -> None:
    """No pattern of ours knows which there will be tomorrow."""
    session = boto3.Session()
    partitions = session.get_available_partitions()
    regions = [r for p in partitions for r in session.get_available_regions("ec2", p)]
    data = Path(moto.ec2.__file__).parent / "resources" / "instance_types.json.gz"
    types = sorted(json.loads(gzip.decompress(data.read_bytes())))
    assert len(regions) > 30
    assert len(types) > 500
    for region in [*regions, "eusc-de-east-1", "us-isob-west-1", "xx-moon-north-12"]:
        check_options(Ec2Driver, {**options, "region": region})
    for kind in [*types, "u7in-32tb.224xlarge", "mac2-m2pro.metal"]:
        check_options(Ec2Driver, {**options, "instance_types": [kind]})
    for price in ("0.003125", "12", "0.05"):
        check_options(Ec2Driver, {**options, "spot": {"max_price": price}})


def boot(**changes: Any) -> userdata.Boot:
    fields: dict[str, Any] = {
        "worker": "w",
        "instance": new_ulid(),
        "epoch": 1,
        "token": "s3cret",
        "mark": "H:I:1",
        "connect_url": "wss://hub.example.org/api/v1/agents/connect",
        "archive_url": f"{PAGE}/api/v1/agents/archive/{'0' * 64}",
        "sha256": "0" * 64,
        "python": "python3",
        "orphan_timeout_s": 1800,
        "insecure": False,
        "is_spot": True,
    }
    return userdata.Boot(**{**fields, **changes})


def test_the_script_is_one_that_sh_understands(tmp_path: Any) -> None:
    for authorities in (None, b"-----BEGIN CERTIFICATE-----\n" + b"A" * 1500):
        script = userdata.linux(boot(authorities=authorities))
        checked = subprocess.run(["sh", "-n"], input=script.encode(), check=False)
        assert checked.returncode == 0
        assert len(script) < userdata.SIZE_BYTES


def test_windows_is_told_the_same() -> None:
    chosen = {"run_as": "agent", "no_new_privileges": True}
    script = userdata.windows(boot(authorities=b"pem", agent_config=chosen))
    assert script.startswith("<powershell>")
    assert "s3cret" not in script
    encoded = script.split("agent.json")[1].split("FromBase64String('")[1].split("'")[0]
    config = json.loads(base64.b64decode(encoded))
    assert config["at_end"] == "poweroff"
    assert config["interruptions"] == "ec2"
    assert {key: config[key] for key in chosen} == chosen


async def test_the_bucket_lets_a_burst_through_and_then_so_many_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(round(seconds, 3))

    monkeypatch.setattr("hostler_hub.drivers.ec2.throttle.asyncio.sleep", sleep)
    at = [0.0]
    bucket = Bucket(2.0, 3, lambda: at[0])
    for _ in range(5):
        await bucket.take()
    assert waits == [0.5, 1.0]
    at[0] += 10
    bucket.penalise()
    await bucket.take()
    assert waits == [0.5, 1.0, 0.5]
