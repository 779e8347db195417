"""Local instances that an earlier version started are found, looked at and ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hub.drivers import before

from hostler_hub.drivers.contract import Environment, InstanceRef, InstanceSpec
from hostler_hub.drivers.local import LocalDriver
from hostler_hub.lifecycle.model import Presence
from hostler_hub.runtime.ids import new_ulid

INSTANCES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"containment": "subreaper"}, {"containment": "subreaper"}),
    ({"environment": {"EXTRA": "yes"}}, {}),
    ({}, {"hub": "ws://localhost/api/v1/agents/connect", "hub_socket": "/nowhere/hub.sock"}),
]
"""Options of the worker, and what else the agent's configuration had."""
KNOWN_BY = ["its stored handle", "its mark", "the handle that was found", "the list"]


@pytest.fixture
async def driver(environment: Environment) -> AsyncIterator[LocalDriver]:
    made = LocalDriver(environment)
    yield made
    await made.aclose()


@pytest.fixture
def options() -> dict[str, Any]:
    return {}


@pytest.fixture
def config() -> dict[str, Any]:
    return {}


@pytest.fixture
def instance(environment: Environment, config: dict[str, Any]) -> Iterator[before.Instance]:
    hub, directory = environment.hub, environment.directory
    with before.started_locally(directory, hub, new_ulid(), config) as made:
        yield made


def ref(
    instance: before.Instance, handle: Mapping[str, Any] | None, options: Mapping[str, Any]
) -> InstanceRef:
    return InstanceRef(before.WORKER, instance.instance, before.EPOCH, handle, options)


@pytest.mark.parametrize("known_by", KNOWN_BY)
@pytest.mark.parametrize(("options", "config"), INSTANCES, ids=str)
async def test_it_is_found_and_destroyed(
    driver: LocalDriver, instance: before.Instance, options: dict[str, Any], known_by: str
) -> None:
    stored = instance.local_handle()
    by_handle = await driver.inspect(ref(instance, stored, options))
    by_mark = await driver.inspect(ref(instance, None, options))
    assert (by_handle.presence, by_mark.presence) == (Presence.RUNNING, Presence.RUNNING)
    (listed,) = await driver.list_owned([options])
    assert (listed.instance, listed.epoch) == (instance.instance, before.EPOCH)
    assert instance.process.poll() is None
    refs = {
        "its stored handle": ref(instance, stored, options),
        "its mark": ref(instance, None, options),
        "the handle that was found": ref(instance, by_mark.handle, options),
        "the list": InstanceRef(listed.worker, listed.instance, listed.epoch, listed.handle, {}),
    }
    await driver.destroy(refs[known_by])
    assert instance.ended()
    assert not instance.directory.exists()
    assert list(await driver.list_owned([options])) == []
    gone = await driver.inspect(ref(instance, stored, options))
    assert gone.presence is Presence.GONE


async def test_P12_a_start_that_is_ordered_again_starts_none_beside_it(
    driver: LocalDriver, instance: before.Instance, options: dict[str, Any]
) -> None:
    spec = InstanceSpec(before.WORKER, instance.instance, before.EPOCH, before.TOKEN, options)
    handle = await driver.create(spec)
    (listed,) = await driver.list_owned([options])
    assert (listed.instance, instance.process.poll()) == (instance.instance, None)
    await driver.destroy(ref(instance, handle, options))
    assert instance.ended()


async def test_the_marks_of_other_hubs_and_of_nobody_are_not_ours(
    driver: LocalDriver, options: dict[str, Any], instance: before.Instance, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        for hub in (new_ulid(), "nonsense:and:more"):
            stack.enter_context(before.started_locally(tmp_path / "others", hub, new_ulid()))
        assert [each.instance for each in await driver.list_owned([options])] == [instance.instance]
        await driver.destroy(ref(instance, None, options))


@pytest.mark.parametrize(
    "changes", [{"boot": "an earlier one"}, {"started": 1.0}, {"pid": 1}], ids=str
)
async def test_E6_a_handle_of_a_process_that_is_no_more_means_nobody(
    driver: LocalDriver, options: dict[str, Any], instance: before.Instance, changes: dict[str, Any]
) -> None:
    """As after a restart of the machine. Its last words are kept until it is destroyed."""
    stored = instance.local_handle(**changes)
    instance.kill()
    (instance.directory / "agent.log").write_text("something is amiss\n")
    seen = await driver.inspect(ref(instance, stored, options))
    assert (seen.presence, "something is amiss" in seen.evidence) == (Presence.GONE, True)
    await driver.destroy(ref(instance, stored, options))
    assert not instance.directory.exists()


@pytest.mark.parametrize(
    ("left_by", "options"),
    [
        (before.left_by_a_job, {}),
        (before.left_by_a_job, {"containment": "subreaper"}),
        (before.left_in_a_job, {}),
    ],
)
async def test_V3_what_a_killed_agent_s_jobs_left_ends_with_its_instance(
    driver: LocalDriver, options: dict[str, Any], instance: before.Instance, left_by: Any
) -> None:
    stored = instance.local_handle()
    with left_by(instance.instance) as left:
        instance.kill()
        await driver.destroy(ref(instance, stored, options))
        assert left.wait(60) is not None
