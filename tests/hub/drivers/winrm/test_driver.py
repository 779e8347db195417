"""The WinRM driver, with real agents on Wine behind a WinRM service."""

from __future__ import annotations

import asyncio
import compileall
import os
import shutil
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from certificates import authority
from conformance.drivers import ref_of, spec_of
from conformance.hosts import Machine, RemoteHostConformance
from peers import small_disk, wine
from peers.wsman import WsMan

from hostler_hub.drivers import agent_archive
from hostler_hub.drivers.contract import Environment, InstanceRef
from hostler_hub.drivers.errors import OptionsRefused, ProviderFailed
from hostler_hub.drivers.registry import check_options
from hostler_hub.drivers.transports.winrm.http import digest
from hostler_hub.drivers.winrm import WinrmDriver
from hostler_hub.lifecycle.model import Presence
from hostler_hub.runtime.secrets import Secrets

pytestmark = pytest.mark.peer("wsman")

MakeService = Callable[..., WsMan]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever answers has the time to: a loaded machine starts a Python for each look."""
    monkeypatch.setattr(WinrmDriver, "query_deadline_s", 60.0)


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[MakeService]:
    made: list[WsMan] = []

    def make(**options: Any) -> WsMan:
        made.append(WsMan(tmp_path / f"service-{len(made)}", **options))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def service(make_service: MakeService) -> WsMan:
    return make_service()


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent as a machine has it after its first start."""
    made = agent_archive.install(tmp_path_factory.mktemp("archive"))
    unpacked = tmp_path_factory.mktemp("agents") / made.sha256
    with zipfile.ZipFile(made.path) as packed:
        packed.extractall(unpacked)
    compileall.compile_dir(unpacked, quiet=2)  # Windows' Python of the tests reads the same
    return unpacked


@pytest.fixture
def winrm_environment(environment: Environment, tmp_path: Path) -> Environment:
    (tmp_path / "secrets").mkdir(exist_ok=True)
    return replace(
        environment,
        archive=agent_archive.install(tmp_path / "archive"),
        secrets=Secrets(tmp_path / "secrets", {}),
    )


@pytest.fixture
def directory(installed: Path, tmp_path: Path) -> Path:
    """The directory of a machine that has the agent already, but for the tests that begin anew."""
    directory = tmp_path / "hostler"
    (directory / "agents").mkdir(parents=True)
    shutil.copytree(installed, directory / "agents" / installed.name, copy_function=os.link)
    for each in (directory, directory / "agents"):
        each.chmod(0o700)
    return directory


@pytest.fixture
def options(service: WsMan, directory: Path, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "secrets").mkdir(exist_ok=True)
    (tmp_path / "secrets" / "password").write_text(service.password)
    return {
        "host": "127.0.0.1",
        "port": service.port,
        "user": service.user,
        "password": {"file": "password"},
        "tls": False,
        "python": wine.windows_path(wine.windows().python),
        "directory": wine.windows_path(directory),
        # Wine's scheduler takes tasks, and runs none: see tests/windows/test_host.py.
        "start": "detached",
    }


async def cleared(driver: WinrmDriver, options: dict[str, Any]) -> AsyncIterator[WinrmDriver]:
    """The driver; whatever a failed test left of its instances is destroyed."""
    yield driver
    for owned in await driver.list_owned([options]):
        await driver.destroy(InstanceRef("", owned.instance, owned.epoch, owned.handle, {}))
    await driver.aclose()


@pytest.fixture
async def driver(
    options: dict[str, Any], winrm_environment: Environment
) -> AsyncIterator[WinrmDriver]:
    async for made in cleared(WinrmDriver(winrm_environment), options):
        yield made


@pytest.fixture
async def other_hub_driver(
    winrm_environment: Environment, other_environment: Environment, options: dict[str, Any]
) -> AsyncIterator[WinrmDriver]:
    theirs = replace(winrm_environment, hub=other_environment.hub)
    async for made in cleared(WinrmDriver(theirs), options):
        yield made


@pytest.fixture
def machine(service: WsMan, directory: Path) -> Machine:
    return Machine(directory, service.stop, service.start, closed_to=0o007)


class TestWinrm(RemoteHostConformance):
    """The contract itself, with instances that are services; the others here are detached."""

    @pytest.fixture
    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        return {**options, "start": "service"}


async def test_V14_neither_the_transport_nor_the_service_manager_sees_the_token(
    driver: WinrmDriver, options: dict[str, Any], service: WsMan
) -> None:
    spec = spec_of({**options, "start": "service"})
    handle = await driver.create(spec)
    assert not [line for line in service.lines if spec.token in line]
    started_by = await asyncio.to_thread(wine.windows().call, "service.commands")
    assert spec.instance in str(started_by)
    assert spec.token not in str(started_by)
    await driver.destroy(ref_of(spec, handle))


async def test_V3_a_host_that_lost_its_python_may_still_have_instances(
    driver: WinrmDriver, options: dict[str, Any], directory: Path
) -> None:
    """By what they have left: those of another are over before they were started."""
    spec = spec_of({**options, "python": "python3.99"})
    await driver.destroy(ref_of(spec, None))
    assert not (directory / "instances").exists()
    (directory / "instances" / spec.instance).mkdir(parents=True)
    with pytest.raises(ProviderFailed, match="option 'python'"):
        await driver.destroy(ref_of(spec, None))
    shutil.rmtree(directory / "instances")


@pytest.mark.parametrize("start", ["detached", "service"])
async def test_G3_the_agent_outlives_the_shell_and_the_service(
    driver: WinrmDriver, options: dict[str, Any], service: WsMan, start: str
) -> None:
    spec = spec_of({**options, "start": start})
    handle = await driver.create(spec)
    assert service.shells == set()
    service.stop()
    service.start()
    assert (await driver.inspect(ref_of(spec, handle))).presence is Presence.RUNNING
    await driver.destroy(ref_of(spec, handle))


async def test_G3_a_job_that_lets_nothing_out_says_what_to_do(
    make_service: MakeService, driver: WinrmDriver, options: dict[str, Any]
) -> None:
    strict = make_service(breakaway=False)
    spec = spec_of({**options, "port": strict.port})
    ways = r"winrm: .*option 'start': .*use 'task' or 'service'"
    with pytest.raises(ProviderFailed, match=ways):
        await driver.create(spec)
    await driver.destroy(ref_of(spec, None))
    assert await driver.list_owned([options]) == []


async def test_P1_a_start_whose_answer_was_lost_is_found_again(
    driver: WinrmDriver,
    options: dict[str, Any],
    service: WsMan,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its command runs on for as long as its shell, and the hub that would close it is dead."""
    monkeypatch.setattr(
        "hostler_hub.drivers.transports.winrm.transport._end_shell", lambda *_: None
    )
    spec = spec_of(options)
    service.faults["Receive"] = "drop"
    with pytest.raises(ProviderFailed, match="winrm: "):
        await driver.create(spec)
    service.faults.clear()
    deadline = asyncio.get_running_loop().time() + 60
    while (await driver.inspect(ref_of(spec, None))).presence is not Presence.RUNNING:
        assert asyncio.get_running_loop().time() < deadline
    await driver.destroy(ref_of(spec, None))


async def test_wrong_credentials_name_driver_options_and_the_way_out(
    driver: WinrmDriver, options: dict[str, Any], tmp_path: Path, service: WsMan
) -> None:
    (tmp_path / "secrets" / "wrong").write_text("guessed wrong")
    spec = spec_of({**options, "password": {"file": "wrong"}})
    wrong = r"winrm: builder@127.0.0.1:\d+ does not let us in: .*options user, password and auth"
    with pytest.raises(ProviderFailed, match=wrong) as caught:
        await driver.create(spec)
    assert "guessed wrong" not in str(caught.value)
    await driver.destroy(ref_of(spec, None))
    missing = spec_of({**options, "password": {"file": "missing"}})
    with pytest.raises(ProviderFailed, match=r"winrm: builder@\S+: option 'password': .*missing"):
        await driver.create(missing)
    await driver.destroy(ref_of(missing, None))
    assert service.shells == set()
    assert await driver.list_owned([options]) == []


async def test_a_machine_that_cannot_be_reached_names_what_to_look_at(
    driver: WinrmDriver, options: dict[str, Any], service: WsMan
) -> None:
    nowhere = spec_of({**options, "host": "no-such-machine.invalid", "port": 5986})
    driver = WinrmDriver(replace(driver._environment, connect_url="wss://hub.example/x"))
    with pytest.raises(ProviderFailed, match=r"winrm: builder@no-such-machine\.invalid.*'host'"):
        await driver.create(nowhere)
    service.stop()
    silent = spec_of(options)
    refused = r"winrm: builder@127.*Connection refused.*see the options host, port"
    with pytest.raises(ProviderFailed, match=refused):
        await driver.create(silent)
    for spec in (nowhere, silent):
        await driver.destroy(ref_of(spec, None))
    await driver.aclose()
    service.start()


async def test_G3_a_wrong_certificate_starts_nothing_and_says_what_to_do(
    make_service: MakeService, driver: WinrmDriver, options: dict[str, Any], tmp_path: Path
) -> None:
    secure = make_service(tls=authority(tmp_path).server_context("127.0.0.1"))
    way = {**options, "port": secure.port, "tls": True}
    with pytest.raises(ProviderFailed, match=r"winrm: .*somebody may be in between.*the option"):
        await driver.create(spec_of({**way, "fingerprint": digest(b"another")}))
    with pytest.raises(ProviderFailed, match=r"winrm: .*set option 'fingerprint' to it") as shown:
        await driver.create(spec_of(way))
    fingerprint = str(shown.value).partition("SHA-256 ")[2].partition(",")[0]
    spec = spec_of({**way, "fingerprint": fingerprint})
    handle = await driver.create(spec)
    await driver.destroy(ref_of(spec, handle))


@pytest.mark.peer("small-disk")
async def test_a_full_disk_is_named_in_the_machine_s_own_words(
    driver: WinrmDriver, options: dict[str, Any], tmp_path: Path
) -> None:
    """Wine's words for it; the agent itself has no room."""
    with small_disk.mounted(tmp_path / "small", "64k") as small:
        spec = spec_of({**options, "directory": wine.windows_path(small / "hostler")})
        told = r"winrm: builder@\S+: cannot write .*small.*[Ss]pace.*option 'directory'"
        with pytest.raises(ProviderFailed, match=told):
            await driver.create(spec)
        await driver.destroy(ref_of(spec, None))
        reborn = WinrmDriver(driver._environment)
        await reborn.destroy(ref_of(spec, None))  # which does not know that nothing was sent
        await reborn.aclose()
        assert list((small / "hostler" / "agents").iterdir()) == []


@pytest.mark.peer("small-disk")
async def test_a_disk_that_filled_up_since_is_named_too(
    driver: WinrmDriver, options: dict[str, Any], tmp_path: Path, installed: Path
) -> None:
    """The agent is there; its configuration finds no room, and no service is made."""
    with small_disk.mounted(tmp_path / "small", "16m") as small:
        directory = small / "hostler"
        (directory / "agents").mkdir(parents=True)
        shutil.copytree(installed, directory / "agents" / installed.name)
        for each in (directory, directory / "agents"):
            each.chmod(0o700)
        given = {**options, "directory": wine.windows_path(directory), "start": "service"}
        await driver.list_owned([given])
        ballast = small_disk.fill(small, 0)
        spec = spec_of(given)
        with pytest.raises(ProviderFailed, match=r"winrm: .*hostler.*option 'directory'"):
            await driver.create(spec)
        # NTFS keeps the few bytes of an end beside the file's name; here they take room (P13).
        with pytest.raises(ProviderFailed, match=r"winrm: .*note the instance's end.*free some"):
            await driver.destroy(ref_of(spec, None))
        ballast.unlink()
        await driver.destroy(ref_of(spec, None))
        assert await driver.list_owned([given]) == []
        left = [each.name for each in (directory / "instances").iterdir()]
        assert [name for name in left if not name.endswith(".lock")] == []


async def test_a_hub_that_cannot_be_reached_from_there_is_refused(
    driver: WinrmDriver, options: dict[str, Any]
) -> None:
    with pytest.raises(OptionsRefused, match=r"winrm: .*listens for this machine only.*PUBLIC_URL"):
        await driver.create(spec_of({**options, "host": "builder.example"}))
    plain = WinrmDriver(replace(driver._environment, connect_url="ws://hub.example/x"))
    with pytest.raises(OptionsRefused, match=r"no TLS"):
        await plain.create(spec_of(options))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"host": "a b"}, "host"),
        ({"host": "$(id)"}, "host"),
        ({"user": "a:b"}, "user"),
        ({"python": "python&whoami"}, "python"),
        ({"python": 'py" "x'}, "python"),
        ({"directory": "relative"}, "directory"),
        ({"directory": "C:\\%TEMP%"}, "directory"),
        ({"directory": "\\\\server\\share"}, "directory"),
        ({"password": "open sesame"}, "password"),
        ({"password": None}, "auth ntlm needs one"),
        ({"auth": "basic", "tls": False}, "it needs tls"),
        ({"tls": False, "ca": {"file": "ca"}}, "are for tls"),
        ({"fingerprint": "AB:CD"}, "fingerprint"),
        ({"start": "magic"}, "start"),
        ({"environment": {"A=B": "x"}}, "environment"),
    ],
)
def test_options_are_refused_with_their_name(change: dict[str, Any], reason: str) -> None:
    given = {"host": "builder", "user": "LAB\\build", "password": {"file": "password"}}
    check_options(WinrmDriver, given)
    with pytest.raises(OptionsRefused, match=f"driver winrm .*{reason}"):
        check_options(WinrmDriver, {**given, **change})
