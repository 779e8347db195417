"""The local driver, with real agents as real processes."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conformance.drivers import Conformance, ref_of, spec_of
from hub.drivers.conftest import files_of

from hostler_hub.drivers.contract import Environment, OptionsRefused, ProviderFailed
from hostler_hub.drivers.local import LocalDriver
from hostler_hub.drivers.registry import check_options, load
from hostler_hub.lifecycle.model import Presence


async def cleared(driver: LocalDriver) -> AsyncIterator[LocalDriver]:
    """The driver; whatever a failed test left of its instances is destroyed."""
    yield driver
    for owned in await driver.list_owned([]):
        await driver.destroy(ref_of(spec_of({}), None))
        psutil.Process(owned.handle["pid"]).kill()


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


class TestLocal(Conformance):
    """The contract itself."""


async def test_G4_found_again_by_a_new_driver(
    driver: LocalDriver, environment: Environment
) -> None:
    spec = spec_of({})
    handle = await driver.create(spec)
    await driver.aclose()
    reborn = LocalDriver(environment)
    assert (await reborn.inspect(ref_of(spec, handle))).presence is Presence.RUNNING
    assert [each.instance for each in await reborn.list_owned([])] == [spec.instance]
    await reborn.destroy(ref_of(spec, handle))


async def test_V14_the_token_is_in_a_private_file_alone(
    driver: LocalDriver, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTLER_DATABASE_URL", "postgresql://hub:secret@db/hub")
    spec = spec_of({"environment": {"EXTRA": "yes"}})
    handle = await driver.create(spec)
    process = psutil.Process(handle["pid"])
    given = process.environ()
    assert spec.token not in " ".join(process.cmdline())
    assert spec.token not in " ".join(given.values())
    assert "HOSTLER_DATABASE_URL" not in given
    assert given["EXTRA"] == "yes"
    files = files_of(environment.directory, spec.instance)
    holding = [path for path in files if spec.token in path.read_text(errors="replace")]
    assert [path.name for path in holding] == ["token"]
    assert stat.S_IMODE(holding[0].stat().st_mode) == 0o600
    await driver.destroy(ref_of(spec, handle))
    assert not any(path.exists() for path in files)


async def test_E6_a_handle_of_another_process_means_nobody(driver: LocalDriver) -> None:
    spec = spec_of({})
    me = psutil.Process(os.getpid())
    handle = {"version": 1, "pid": me.pid, "started": me.create_time() - 60, "boot": "x"}
    seen = await driver.inspect(ref_of(spec, handle))
    assert seen.presence is Presence.GONE
    await driver.destroy(ref_of(spec, handle))  # and we are still here to tell


async def test_P7_the_last_words_of_an_agent_that_died_are_evidence(driver: LocalDriver) -> None:
    spec = spec_of({})
    handle = await driver.create(spec)
    process = psutil.Process(handle["pid"])
    process.send_signal(signal.SIGKILL)
    psutil.wait_procs([process], timeout=60)
    seen = await driver.inspect(ref_of(spec, handle))
    assert seen.presence is Presence.GONE
    assert "last words" in seen.evidence
    await driver.destroy(ref_of(spec, handle))


async def test_the_last_words_are_read_from_no_link(driver: LocalDriver, tmp_path: Path) -> None:
    """A build of the same user could lead it to the hub's database; see store/files.py."""
    (tmp_path / "hub.sqlite3").write_text("not for reading")
    log = driver._directory("w", "i") / "agent.log"
    log.parent.mkdir(parents=True)
    log.symlink_to(tmp_path / "hub.sqlite3")
    assert driver._last_words("w", "i").endswith("last words: none")
    shutil.rmtree(log.parent.parent)


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
