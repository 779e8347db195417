"""The SSH driver, with real agents behind real sshds."""

from __future__ import annotations

import asyncio
import compileall
import contextlib
import os
import shutil
import socket
import sys
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from conformance.drivers import ref_of, spec_of
from conformance.hosts import Machine, RemoteHostConformance
from peers import small_disk
from peers.sshd import Sshd, make_key

from hostler_hub.drivers import agent_archive
from hostler_hub.drivers.contract import Environment, InstanceRef
from hostler_hub.drivers.errors import OptionsRefused, ProviderFailed
from hostler_hub.drivers.registry import check_options
from hostler_hub.drivers.ssh.driver import SshDriver
from hostler_hub.drivers.ssh.machines import Machines
from hostler_hub.drivers.ssh.options import SshOptions
from hostler_hub.drivers.transports.contract import Command
from hostler_hub.drivers.transports.ssh import session
from hostler_hub.lifecycle.model import Presence
from hostler_hub.runtime.secrets import Secrets

pytestmark = pytest.mark.peer("sshd")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever answers has the time to: a loaded machine starts a Python for each look."""
    monkeypatch.setattr(SshDriver, "query_deadline_s", 60.0)


@pytest.fixture
def make_sshd(tmp_path: Path) -> Iterator[Callable[..., Sshd]]:
    made: list[Sshd] = []

    def make(*lines: str) -> Sshd:
        made.append(Sshd(tmp_path / f"sshd-{len(made)}", *lines))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def sshd(make_sshd: Callable[..., Sshd]) -> Sshd:
    return make_sshd()


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent as a machine has it after its first start."""
    made = agent_archive.install(tmp_path_factory.mktemp("archive"))
    unpacked = tmp_path_factory.mktemp("agents") / made.sha256
    with zipfile.ZipFile(made.path) as packed:
        packed.extractall(unpacked)
    compileall.compile_dir(unpacked, quiet=2)
    return unpacked


@pytest.fixture
def ssh_environment(environment: Environment, tmp_path: Path) -> Environment:
    (tmp_path / "secrets").mkdir()
    return replace(
        environment,
        archive=agent_archive.install(tmp_path / "archive"),
        secrets=Secrets(tmp_path / "secrets", {}),
        config_directory=tmp_path / "drivers" / "ssh",
    )


async def cleared(driver: SshDriver, options: dict[str, Any]) -> AsyncIterator[SshDriver]:
    """The driver; whatever a failed test left of its instances is destroyed."""
    yield driver
    mark = f"--mark\0{driver._environment.hub}:"
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if mark in "\0".join(process.cmdline()):
                process.kill()
    await driver.aclose()


@pytest.fixture
async def driver(ssh_environment: Environment, options: dict[str, Any]) -> AsyncIterator[SshDriver]:
    async for made in cleared(SshDriver(ssh_environment), options):
        yield made


@pytest.fixture
async def other_hub_driver(
    ssh_environment: Environment, other_environment: Environment, options: dict[str, Any]
) -> AsyncIterator[SshDriver]:
    theirs = replace(
        ssh_environment, hub=other_environment.hub, config_directory=other_environment.directory
    )
    async for made in cleared(SshDriver(theirs), options):
        yield made


@pytest.fixture
def options(
    sshd: Sshd, ssh_environment: Environment, installed: Path, tmp_path: Path
) -> dict[str, Any]:
    """Of a machine that has the agent already, but for the tests that begin anew."""
    directory = tmp_path / "hostler"
    shutil.copytree(installed, directory / "agents" / installed.name, copy_function=os.link)
    for each in (directory, directory / "agents"):
        each.chmod(0o700)
    (tmp_path / "secrets" / "client").write_text(sshd.client_key.read_text())
    return {
        "host": sshd.address,
        "port": sshd.port,
        "user": sshd.user,
        "key": {"file": "client"},
        "host_key": sshd.public_host_key,
        "python": sys.executable,
        "directory": str(directory),
        "connect_timeout_s": 60.0,
    }


@pytest.fixture
def machine(sshd: Sshd, tmp_path: Path) -> Machine:
    return Machine(tmp_path / "hostler", sshd.stop, sshd.start)


class TestSsh(RemoteHostConformance):
    """The contract itself."""


async def test_G2_MOTD_and_a_chatty_shell_do_not_matter(
    make_sshd: Callable[..., Sshd],
    ssh_environment: Environment,
    options: dict[str, Any],
    tmp_path: Path,
) -> None:
    noise = tmp_path / "noise"
    noise.write_text(
        "#!/bin/sh\necho 'Welcome!'; echo '@hostler 0 2'; echo '{}'\n"
        'sh -c "$SSH_ORIGINAL_COMMAND"; s=$?; echo logout; exit $s\n'
    )
    noise.chmod(0o755)
    chatty = make_sshd(f"ForceCommand {noise}")
    key = (tmp_path / "sshd-0" / "client.pub").read_text()
    (chatty.directory / "authorized_keys").write_text(key)
    noisy = {**options, "port": chatty.port, "host_key": chatty.public_host_key}
    shutil.rmtree(tmp_path / "hostler")  # the agent is pushed through such a shell as well
    async for driver in cleared(SshDriver(ssh_environment), noisy):
        spec = spec_of(noisy)
        handle = await driver.create(spec)
        assert (await driver.inspect(ref_of(spec, handle))).presence is Presence.RUNNING
        await driver.destroy(ref_of(spec, handle))


async def test_P1_two_first_starts_at_once_both_succeed(
    driver: SshDriver, options: dict[str, Any], tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "hostler")
    specs = [spec_of(options, worker=f"w-{number}") for number in range(3)]
    handles = await asyncio.gather(*map(driver.create, specs))
    assert len(await driver.list_owned([options])) == 3
    for spec, handle in zip(specs, handles, strict=True):
        await driver.destroy(ref_of(spec, handle))


async def test_G2_a_changed_key_starts_nothing_and_says_what_to_do(
    driver: SshDriver, options: dict[str, Any], sshd: Sshd
) -> None:
    spec = spec_of(options)
    handle = await driver.create(spec)
    await driver.aclose()
    sshd.stop()
    sshd.change_host_key()
    sshd.start()
    with pytest.raises(ProviderFailed, match=r"somebody may be in between.*option 'host_key'"):
        await driver.create(spec_of(options))
    with pytest.raises(ProviderFailed, match=r"another key"):
        await driver.destroy(ref_of(spec, handle))
    corrected = {**options, "host_key": sshd.public_host_key}
    ref = InstanceRef(spec.worker, spec.instance, spec.epoch, handle, corrected)
    await driver.destroy(ref)


async def test_wrong_credentials_name_driver_options_and_the_server_s_words(
    driver: SshDriver, options: dict[str, Any], tmp_path: Path
) -> None:
    make_key(tmp_path / "other")
    (tmp_path / "secrets" / "other").write_text((tmp_path / "other").read_text())
    wrong = "ssh: .*does not let us in: Authentication failed.*options user, key and password"
    with pytest.raises(ProviderFailed, match=wrong):
        await driver.create(spec_of({**options, "key": {"file": "other"}}))


async def test_a_python_that_is_too_old_is_named(
    driver: SshDriver, options: dict[str, Any], tmp_path: Path
) -> None:
    old = tmp_path / "python3.6"
    old.write_text(
        "#!/bin/sh\necho 'hostler-agent: Python 3.9 or newer is needed, this is 3.6' >&2\nexit 92\n"
    )
    old.chmod(0o755)
    with pytest.raises(ProviderFailed, match=r"option 'python': .* is too old; Python 3.9"):
        await driver.create(spec_of({**options, "python": str(old)}))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with small_disk.mounted(tmp_path / "small", "64k") as mounted:
        yield mounted


@pytest.mark.peer("small-disk")
async def test_a_full_disk_is_named_in_the_machine_s_own_words(
    driver: SshDriver, options: dict[str, Any], small: Path
) -> None:
    """As it is told on the standard error of the command that writes the file."""
    spec = spec_of({**options, "directory": str(small / "hostler")})
    told = rf"ssh: .*into {small}/hostler: .*No space left on device.*option 'directory'"
    with pytest.raises(ProviderFailed, match=told):
        await driver.create(spec)
    await driver.destroy(ref_of(spec, None))
    assert list((small / "hostler" / "agents").iterdir()) == []


@pytest.mark.peer("small-disk")
async def test_a_disk_that_filled_up_since_is_named_too(
    driver: SshDriver, options: dict[str, Any], tmp_path: Path
) -> None:
    """The agent is there; its configuration finds no room."""
    with small_disk.mounted(tmp_path / "small", "16m") as small:
        given = {**options, "directory": str(small / "hostler")}
        first, second = spec_of(given), spec_of(given)
        await driver.destroy(ref_of(first, await driver.create(first)))
        small_disk.fill(small, 0)
        told = rf"ssh: .*{small}/hostler.*No space left on device.*option 'directory'"
        with pytest.raises(ProviderFailed, match=told):
            await driver.create(second)
        await driver.destroy(ref_of(second, None))
        left = [each.name for each in (small / "hostler" / "instances").iterdir()]
        assert [name for name in left if not name.endswith(".lock")] == []


async def test_a_directory_that_cannot_be_made_is_named(
    driver: SshDriver, options: dict[str, Any]
) -> None:
    spec = spec_of({**options, "directory": "/proc/hostler"})
    with pytest.raises(ProviderFailed, match=r"ssh: .*option 'directory': .*/proc/hostler"):
        await driver.create(spec)
    await driver.destroy(ref_of(spec, None))


async def test_a_hub_that_cannot_be_reached_from_there_is_refused_with_both_ways_out(
    driver: SshDriver, options: dict[str, Any]
) -> None:
    with pytest.raises(
        OptionsRefused, match=r"listens for this machine only.*'tunnel'.*PUBLIC_URL"
    ):
        await driver.create(spec_of({**options, "host": "builder.example"}))
    plain = SshDriver(replace(driver._environment, connect_url="ws://hub.example/x"))
    with pytest.raises(OptionsRefused, match=r"no TLS"):
        await plain.create(spec_of(options))


async def test_a_tunnel_that_sshd_refuses_names_the_option_and_leaves_nothing(
    make_sshd: Callable[..., Sshd],
    ssh_environment: Environment,
    options: dict[str, Any],
    sshd: Sshd,
    tmp_path: Path,
) -> None:
    strict = make_sshd("AllowTcpForwarding no")
    shutil.copy(sshd.directory / "authorized_keys", strict.directory)
    given = {**options, "port": strict.port, "host_key": strict.public_host_key, "tunnel": True}
    driver = SshDriver(replace(ssh_environment, hub_socket=tmp_path / "hub.sock"))
    spec = spec_of(given)
    with pytest.raises(ProviderFailed, match=r"option 'tunnel': sshd refused.*AllowTcpForwarding"):
        await driver.create(spec)
    await driver.destroy(ref_of(spec, None))
    without = SshDriver(ssh_environment)
    with pytest.raises(ProviderFailed, match=r"option 'tunnel': this hub has no socket"):
        await without.create(spec_of(given))
    for each in (driver, without):
        await each.aclose()


async def test_a_machine_that_was_mended_is_tried_with_a_new_connection(
    make_sshd: Callable[..., Sshd],
    driver: SshDriver,
    options: dict[str, Any],
    sshd: Sshd,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "SESSION_PAUSES_S", (0.01,))
    broken = make_sshd("MaxSessions 0")
    shutil.copy(sshd.directory / "authorized_keys", broken.directory)
    given = {**options, "port": broken.port, "host_key": broken.public_host_key}
    with pytest.raises(ProviderFailed, match="MaxSessions"):
        await driver.create(spec_of(given))
    broken.reconfigure()
    spec = spec_of(given)
    await driver.destroy(ref_of(spec, await driver.create(spec)))


async def test_V19_machines_that_hang_hold_up_no_other(
    ssh_environment: Environment, options: dict[str, Any]
) -> None:
    """More than there were threads for all of them, with all the time in the world."""
    machines = Machines(ssh_environment)
    with contextlib.ExitStack() as silent:
        hung = [silent.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(40)]
        waiting = []
        for each in hung:
            given = SshOptions.of({**options, "port": each.getsockname()[1]})
            call = machines.transport(given).run(Command(["true"]))
            waiting.append(asyncio.create_task(call))
        await asyncio.sleep(0)
        healthy = machines.transport(SshOptions.of(options))
        assert (await healthy.run(Command(["echo", "up"]))).stdout == b"up\n"
        assert not any(each.done() for each in waiting)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    await machines.aclose()


@pytest.mark.peer("small-disk")
@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("noexec", ""),
        ("ro", r"ssh: .*option 'directory': .*Read-only file system"),
    ],
)
async def test_homes_that_run_or_take_nothing(
    driver: SshDriver, options: dict[str, Any], tmp_path: Path, how: str, named: str
) -> None:
    """No program of the agent is executed from where it lies; it must lie somewhere, though."""
    with small_disk.mounted(tmp_path / "home", "64m", how) as home:
        spec = spec_of({**options, "directory": str(home / "hostler")})
        if named:
            with pytest.raises(ProviderFailed, match=named):
                await driver.create(spec)
            await driver.destroy(ref_of(spec, None))
            return
        handle = await driver.create(spec)
        assert (await driver.inspect(ref_of(spec, handle))).presence is Presence.RUNNING
        await driver.destroy(ref_of(spec, handle))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"host": "-oProxyCommand=id"}, "host"),
        ({"host": "a b"}, "host"),
        ({"host": "$(id)"}, "host"),
        ({"user": "-l"}, "user"),
        ({"python": "-c"}, "python"),
        ({"python": "python3;id"}, "python"),
        ({"directory": "relative"}, "directory"),
        ({"jump": [{"host": "-x"}]}, "jump.0.host"),
        ({"key": "text of a key"}, "key"),
        ({"wake": {}}, "either mac or hook"),
        ({"wake": {"hook": "../sh"}}, "wake.hook"),
        ({"environment": {"A=B": "x"}}, "environment"),
    ],
)
def test_options_are_refused_with_their_name(change: dict[str, Any], reason: str) -> None:
    check_options(SshDriver, {"host": "builder", "jump": [{"host": "bastion"}]})
    with pytest.raises(OptionsRefused, match=f"driver ssh .*{reason}"):
        check_options(SshDriver, {"host": "builder", **change})
