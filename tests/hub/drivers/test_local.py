"""The local driver, with real agents as real processes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from conformance.drivers import ref_of, spec_of
from conformance.hosts import HostConformance, Machine

from hostler_hub.drivers.contract import Environment, InstanceRef, InstanceSpec
from hostler_hub.drivers.errors import OptionsRefused, ProviderFailed
from hostler_hub.drivers.local import LocalDriver
from hostler_hub.drivers.registry import check_options, load
from hostler_hub.lifecycle.model import Presence


async def cleared(driver: LocalDriver) -> AsyncIterator[LocalDriver]:
    """The driver; whatever a failed test left of its instances is destroyed."""
    yield driver
    for owned in await driver.list_owned([]):
        await driver.destroy(ref_of(spec_of({}), None))
        psutil.Process(owned.handle["process"]["pid"]).kill()


@pytest.fixture
async def driver(environment: Environment) -> AsyncIterator[LocalDriver]:
    async for made in cleared(LocalDriver(environment)):
        yield made


@pytest.fixture
async def other_hub_driver(other_environment: Environment) -> AsyncIterator[LocalDriver]:
    async for made in cleared(LocalDriver(other_environment)):
        yield made


@pytest.fixture
def options() -> dict[str, Any]:
    return {}


@pytest.fixture
def machine(environment: Environment) -> Machine:
    return Machine(environment.directory)


class TestLocal(HostConformance):
    """The contract itself."""


async def test_V14_an_agent_gets_no_variables_of_the_hub_s(
    driver: LocalDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTLER_DATABASE_URL", "postgresql://hub:secret@db/hub")
    spec = spec_of({"environment": {"EXTRA": "yes"}})
    handle = await driver.create(spec)
    given = psutil.Process(handle["process"]["pid"]).environ()
    assert (given["EXTRA"], given.get("HOSTLER_DATABASE_URL")) == ("yes", None)
    await driver.destroy(ref_of(spec, handle))


async def test_E6_a_handle_of_another_process_means_nobody(driver: LocalDriver) -> None:
    spec = spec_of({})
    me = psutil.Process(os.getpid())
    process = {"pid": me.pid, "started": 1, "boot": "x"}
    first = {"version": 1, "pid": me.pid, "started": me.create_time(), "boot": "x"}
    for handle in (first, {"version": 2, "options": {}, "process": process}):
        seen = await driver.inspect(ref_of(spec, handle))
        assert seen.presence is Presence.GONE
        await driver.destroy(ref_of(spec, handle))  # and we are still here to tell


async def test_an_agent_that_ended_is_reaped(driver: LocalDriver) -> None:
    spec = spec_of({})
    handle = await driver.create(spec)
    pid = handle["process"]["pid"]
    pidfd, ended = os.pidfd_open(pid), asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, ended.set)
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        await ended.wait()  # the driver hears of it in the same turn of the loop
    asyncio.get_running_loop().remove_reader(pidfd)
    os.close(pidfd)
    assert not psutil.pid_exists(pid)  # as a zombie it still would
    await driver.destroy(ref_of(spec, handle))


@dataclass(frozen=True)
class Former:
    """An instance as the driver started it before handles of version 2."""

    spec: InstanceSpec
    handle: Mapping[str, Any]
    directory: Path
    process: subprocess.Popen[bytes]


@pytest.fixture
def former(environment: Environment) -> Iterator[Former]:
    spec = spec_of({})
    directory = environment.directory / spec.worker / spec.instance
    (directory / "work").mkdir(parents=True)
    environment.directory.chmod(0o775)  # as the umask of many a user had it
    config = {
        "hub": environment.connect_url,
        "name": spec.worker,
        "instance": spec.instance,
        "epoch": spec.epoch,
        "workdir": str(directory / "work"),
        "token_file": str(directory / "token"),
        "containment": "auto",
    }
    for name, content in (("token", spec.token), ("agent.json", json.dumps(config))):
        (directory / name).touch(0o600)
        (directory / name).write_text(content)
    argv = [sys.executable, "-m", "hostler_agent", "run"]
    argv += ["--config", str(directory / "agent.json")]
    argv += ["--mark", f"{environment.hub}:{spec.instance}:{spec.epoch}"]
    with (directory / "agent.log").open("ab") as log:
        process = subprocess.Popen(
            argv, stdout=log, stderr=log, cwd=directory, start_new_session=True
        )
    of_process = psutil.Process(process.pid)
    while not of_process.cmdline():  # its exec is not done yet
        assert process.poll() is None
    handle = {
        "version": 1,
        "pid": process.pid,
        "started": of_process.create_time(),
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
    }
    yield Former(spec, handle, directory, process)
    process.kill()
    process.wait()


async def test_an_instance_of_a_former_hub_is_found_and_destroyed(
    driver: LocalDriver, former: Former
) -> None:
    spec, handle = former.spec, former.handle
    for known in (handle, None):
        seen = await driver.inspect(ref_of(spec, known))
        assert seen.presence is Presence.RUNNING
        assert seen.handle is not None
        assert (seen.handle["version"], seen.handle["process"]["pid"]) == (2, handle["pid"])
    assert [each.instance for each in await driver.list_owned([])] == [spec.instance]
    assert (await driver.create(spec))["process"]["pid"] == handle["pid"]
    await driver.destroy(ref_of(spec, handle))
    assert former.process.wait(60) is not None
    assert not former.directory.exists()
    assert await driver.list_owned([]) == []


async def test_a_former_instance_that_only_reconcile_knows_is_destroyed(
    driver: LocalDriver, former: Former
) -> None:
    (owned,) = await driver.list_owned([])
    await driver.destroy(InstanceRef("", owned.instance, owned.epoch, owned.handle, {}))
    assert former.process.wait(60) is not None
    assert not former.directory.exists()


async def test_an_interpreter_that_is_not_there_is_the_provider_s_failure(
    driver: LocalDriver, tmp_path: Path
) -> None:
    spec = spec_of({"python": str(tmp_path / "no-python")})
    with pytest.raises(ProviderFailed, match="cannot start the agent"):
        await driver.create(spec)
    await driver.destroy(ref_of(spec, None))


def test_options_are_refused_with_their_name() -> None:
    with pytest.raises(OptionsRefused, match=r"driver local .* pyhton: .*it knows: .*python"):
        check_options(LocalDriver, {"pyhton": "x"})
    with pytest.raises(OptionsRefused, match="containment"):
        check_options(LocalDriver, {"containment": "jail"})


def test_the_installed_drivers_are_found_by_entry_point() -> None:
    assert {"local", "fake", "permanent"} <= set(load())
