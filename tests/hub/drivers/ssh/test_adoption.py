"""Instances that an earlier version started by SSH are found, looked at and ended.

The agent on the machine is of a digest that this hub does not have, as after an upgrade.
"""

from __future__ import annotations

import compileall
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hub.drivers import before
from peers.sshd import Sshd

from hostler_hub.drivers.contract import AgentArchive, Environment, InstanceRef, InstanceSpec
from hostler_hub.drivers.ssh.driver import SshDriver
from hostler_hub.lifecycle.model import Presence
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.runtime.secrets import Secrets

pytestmark = pytest.mark.peer("sshd")

HUB_PORT = 21154
OPTIONS: list[dict[str, Any]] = [
    {},
    {"containment": "subreaper"},
    {"environment": {"EXTRA": "yes"}},
    {"tunnel": True},
    {"jump": [{"host": "127.0.0.1"}]},
    {"accept_new": True, "host_key": None, "connect_timeout_s": 30.0},
]
"""What workers had beside the machine, the user and the key."""
KNOWN_BY = ["its stored handle", "its mark", "the handle that was found", "the list"]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever answers has the time to: a loaded machine starts a Python for each look."""
    monkeypatch.setattr(SshDriver, "query_deadline_s", 60.0)


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    made = Sshd(tmp_path / "sshd")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def driver_environment(
    environment: Environment, archive: AgentArchive, tmp_path: Path, sshd: Sshd
) -> Environment:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "client").write_text(sshd.client_key.read_text())
    socket = tmp_path / "hub.sock"
    socket.touch()
    return replace(
        environment,
        archive=archive,
        secrets=Secrets(tmp_path / "secrets", {}),
        config_directory=tmp_path / "drivers" / "ssh",
        hub_socket=socket,
    )


@pytest.fixture
async def driver(driver_environment: Environment) -> AsyncIterator[SshDriver]:
    made = SshDriver(driver_environment)
    yield made
    await made.aclose()


@pytest.fixture(scope="session")
def installed(archive: AgentArchive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent as a machine has it after its first start."""
    unpacked = tmp_path_factory.mktemp("agents") / archive.sha256
    shutil.unpack_archive(archive.path, unpacked, "zip")
    compileall.compile_dir(unpacked, quiet=2)
    return unpacked


@pytest.fixture
def root(tmp_path: Path, installed: Path) -> Path:
    """The machine's directory, with an old agent in it, and this hub's own."""
    made = tmp_path / "hostler"
    for name in (before.OLD_DIGEST, installed.name):
        shutil.copytree(installed, made / "agents" / name, copy_function=os.link)
    for each in (made, made / "agents"):
        each.chmod(0o700)
    return made


@pytest.fixture
def more() -> dict[str, Any]:
    return {}


@pytest.fixture
def options(more: dict[str, Any], sshd: Sshd, root: Path) -> dict[str, Any]:
    login = {"port": sshd.port, "user": sshd.user, "key": {"file": "client"}}
    login["host_key"] = sshd.public_host_key
    made = {"host": sshd.address, **login, "python": sys.executable, "directory": str(root), **more}
    if "jump" in more:
        made["jump"] = [{**hop, **login} for hop in more["jump"]]
    return made


@pytest.fixture
def instance(
    driver_environment: Environment, root: Path, options: dict[str, Any]
) -> Iterator[before.Instance]:
    config = {"containment": options.get("containment", "auto")}
    if options.get("tunnel"):
        config["hub"] = f"ws://127.0.0.1:{HUB_PORT}/api/v1/agents/connect"
    with before.started_on_host(root, driver_environment.hub, new_ulid(), config) as made:
        yield made


def stored_handle(
    instance: before.Instance, options: Mapping[str, Any], root: Path
) -> dict[str, Any]:
    """As it stands in the database: what differs from the defaults, and is not of the start."""
    lasting = {
        name: value
        for name, value in options.items()
        if name not in ("environment", "tunnel") and value is not None
    }
    return {
        "version": 1,
        "options": lasting,
        "directory": str(root),
        "process": instance.host_process(),
        "port": HUB_PORT if options.get("tunnel") else None,
    }


def ref(
    instance: before.Instance, handle: Mapping[str, Any] | None, options: Mapping[str, Any]
) -> InstanceRef:
    return InstanceRef(before.WORKER, instance.instance, before.EPOCH, handle, options)


@pytest.mark.parametrize(
    ("more", "known_by"),
    [*((more, KNOWN_BY[0]) for more in OPTIONS), *(({}, known_by) for known_by in KNOWN_BY[1:])],
    ids=str,
)
async def test_it_is_found_and_destroyed(
    driver: SshDriver,
    instance: before.Instance,
    options: dict[str, Any],
    root: Path,
    known_by: str,
) -> None:
    stored = stored_handle(instance, options, root)
    by_handle = await driver.inspect(ref(instance, stored, options))
    by_mark = await driver.inspect(ref(instance, None, options))
    assert (by_handle.presence, by_mark.presence) == (Presence.RUNNING, Presence.RUNNING)
    (listed,) = await driver.list_owned([options])
    assert (listed.instance, listed.epoch) == (instance.instance, before.EPOCH)
    assert listed.worker == before.WORKER
    assert instance.process.poll() is None
    refs = {
        "its stored handle": ref(instance, stored, {}),
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
    driver: SshDriver, instance: before.Instance, options: dict[str, Any]
) -> None:
    spec = InstanceSpec(before.WORKER, instance.instance, before.EPOCH, before.TOKEN, options)
    handle = await driver.create(spec)
    assert handle["process"] == instance.host_process()
    (listed,) = await driver.list_owned([options])
    assert (listed.instance, instance.process.poll()) == (instance.instance, None)
    await driver.destroy(ref(instance, handle, options))
    assert instance.ended()


async def test_P12_a_start_that_arrives_after_the_end_starts_nothing(
    driver: SshDriver, options: dict[str, Any], root: Path
) -> None:
    """The earlier version has written down that it was over."""
    spec = InstanceSpec(before.WORKER, new_ulid(), before.EPOCH, before.TOKEN, options)
    (root / "instances").mkdir(mode=0o700)
    (root / "instances" / f"{spec.instance}.lock").write_text("gone")
    with pytest.raises(Exception, match="was ended before"):
        await driver.create(spec)
    assert list(await driver.list_owned([options])) == []


async def test_what_the_definition_says_now_leads_to_what_was_started_then(
    driver: SshDriver, instance: before.Instance, options: dict[str, Any], root: Path
) -> None:
    """The definition has another directory by now, and one that has another user."""
    stored = stored_handle(instance, options, root)
    for changes in ({"directory": "/nowhere/hostler"}, {"user": "somebody"}):
        seen = await driver.inspect(ref(instance, stored, {**options, **changes}))
        assert seen.presence is Presence.RUNNING
    elsewhere = {**options, "directory": "/nowhere/hostler"}
    await driver.destroy(ref(instance, stored, elsewhere))
    assert instance.ended()


async def test_the_marks_of_other_hubs_are_not_ours(
    driver: SshDriver, instance: before.Instance, options: dict[str, Any], root: Path
) -> None:
    with ExitStack() as stack:
        stack.enter_context(before.started_on_host(root, new_ulid(), new_ulid()))
        assert [each.instance for each in await driver.list_owned([options])] == [instance.instance]
        await driver.destroy(ref(instance, None, options))


async def test_the_agent_of_this_hub_is_pushed_beside_the_old_one_that_is_in_use(
    driver: SshDriver,
    instance: before.Instance,
    options: dict[str, Any],
    root: Path,
    installed: Path,
) -> None:
    shutil.rmtree(root / "agents" / installed.name)
    seen = await driver.inspect(ref(instance, stored_handle(instance, options, root), options))
    assert seen.presence is Presence.RUNNING
    agents = {each.name for each in (root / "agents").iterdir()}
    assert agents == {before.OLD_DIGEST, installed.name}
    await driver.destroy(ref(instance, None, options))


async def test_a_directory_that_was_left_is_listed_and_removed(
    driver: SshDriver, instance: before.Instance, options: dict[str, Any], root: Path
) -> None:
    """As after a restart of the machine."""
    stored = stored_handle(instance, options, root)
    instance.kill()
    (instance.directory / "agent.log").write_text("something is amiss\n")
    seen = await driver.inspect(ref(instance, stored, options))
    assert (seen.presence, "something is amiss" in seen.evidence) == (Presence.GONE, True)
    (listed,) = await driver.list_owned([options])
    assert (listed.instance, listed.epoch) == (instance.instance, before.EPOCH)
    await driver.destroy(InstanceRef("", listed.instance, listed.epoch, listed.handle, {}))
    assert not instance.directory.exists()
    assert list(await driver.list_owned([options])) == []


@pytest.mark.parametrize("left_by", [before.left_by_a_job, before.left_in_a_job])
async def test_V3_what_a_killed_agent_s_jobs_left_ends_with_its_instance(
    driver: SshDriver,
    instance: before.Instance,
    options: dict[str, Any],
    root: Path,
    left_by: Any,
) -> None:
    stored = stored_handle(instance, options, root)
    with left_by(instance.instance) as left:
        instance.kill()
        await driver.destroy(ref(instance, stored, options))
        assert left.wait(60) is not None
