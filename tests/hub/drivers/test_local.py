"""The local driver, with real agents as real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from conformance.drivers import ref_of, spec_of
from conformance.hosts import HostConformance, Machine
from conformance.malformed import MalformedConfigurations

from hostler_hub.drivers.contract import Environment
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


class TestMalformed(MalformedConfigurations):
    """Nothing but the driver's own errors."""

    most_carried_out = 16  # each is a process to start, and one that clears up after it


async def test_V14_an_agent_gets_no_variables_of_the_hub_s_nor_of_its_builds(
    driver: LocalDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTLER_DATABASE_URL", "postgresql://hub:secret@db/hub")
    spec = spec_of({"environment": {"PYTHONHOME": "/nonexistent", "EXTRA": "yes"}})
    handle = await driver.create(spec)
    given = psutil.Process(handle["process"]["pid"]).environ()
    assert not {"HOSTLER_DATABASE_URL", "PYTHONHOME", "EXTRA"} & set(given)
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


@pytest.mark.parametrize("lead", [Path.symlink_to, Path.hardlink_to])
async def test_the_last_words_are_read_from_no_link(
    driver: LocalDriver, environment: Environment, tmp_path: Path, lead: Callable[..., None]
) -> None:
    """A build of the same user could lead it to the hub's database; see store/files.py."""
    (tmp_path / "hub.sqlite3").write_text("not for reading")
    spec = spec_of({})
    await driver.list_owned([])
    for directory in ("instances", spec.worker):  # as now, and as before handles of version 2
        log = environment.directory / directory / spec.instance / "agent.log"
        log.parent.mkdir(parents=True)
        lead(log, tmp_path / "hub.sqlite3")
    seen = await driver.inspect(ref_of(spec, None))
    assert seen.evidence.endswith("last words: ")
    assert "not for reading" not in str(await driver.evidence(ref_of(spec, None)))
    await driver.destroy(ref_of(spec, None))


async def test_a_directory_that_the_umask_left_open_is_made_private(
    driver: LocalDriver, environment: Environment
) -> None:
    """As hubs before handles of version 2 made it for many a user."""
    environment.directory.mkdir()
    environment.directory.chmod(0o775)
    assert list(await driver.list_owned([])) == []
    assert stat.S_IMODE(environment.directory.stat().st_mode) == 0o700


async def test_an_interpreter_that_is_not_there_is_the_provider_s_failure(
    driver: LocalDriver, tmp_path: Path
) -> None:
    spec = spec_of({"python": str(tmp_path / "no-python")})
    with pytest.raises(ProviderFailed, match="cannot start the agent"):
        await driver.create(spec)
    await driver.destroy(ref_of(spec, None))


async def test_a_directory_that_cannot_be_made_is_named(
    environment: Environment, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    driver = LocalDriver(replace(environment, directory=tmp_path / "file" / "local"))
    spec = spec_of({})
    with pytest.raises(ProviderFailed, match=r"local: .*/file/local: Not a directory"):
        await driver.create(spec)
    await driver.aclose()


def test_options_are_refused_with_their_name() -> None:
    with pytest.raises(OptionsRefused, match=r"driver local .* pyhton: .*it knows: .*python"):
        check_options(LocalDriver, {"pyhton": "x"})
    with pytest.raises(OptionsRefused, match="containment"):
        check_options(LocalDriver, {"containment": "jail"})


def test_the_installed_drivers_are_found_by_entry_point() -> None:
    assert {"local", "fake", "permanent"} <= set(load())
