"""Instances that an earlier version started by WinRM are found, looked at and ended.

Directories, files, command lines and services are written out, as that version made them. The agent
on the machine is of a digest that this hub does not have, as after an upgrade.
"""

from __future__ import annotations

import asyncio
import compileall
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from peers import wine
from peers.wsman import WsMan

from hostler_hub.drivers.contract import AgentArchive, Environment, InstanceRef
from hostler_hub.drivers.winrm.driver import WinrmDriver
from hostler_hub.lifecycle.model import Presence
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.runtime.secrets import Secrets

pytestmark = pytest.mark.peer("wsman")

WORKER, EPOCH, OLD_DIGEST = "w-1", 3, "b" * 64
DOES_NOT_EXIST = 1060


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever answers has the time to: a loaded machine starts a Python for each look."""
    monkeypatch.setattr(WinrmDriver, "query_deadline_s", 60.0)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[WsMan]:
    made = WsMan(tmp_path / "service")
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def installed(archive: AgentArchive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent as a machine has it after its first start."""
    unpacked = tmp_path_factory.mktemp("agents") / archive.sha256
    shutil.unpack_archive(archive.path, unpacked, "zip")
    compileall.compile_dir(unpacked, quiet=2)  # Windows' Python of the tests reads the same
    return unpacked


@pytest.fixture
def root(tmp_path: Path, installed: Path) -> Path:
    """The machine's directory, with an old agent in it, and this hub's own."""
    made = tmp_path / "hostler"
    for name in (OLD_DIGEST, installed.name):
        shutil.copytree(installed, made / "agents" / name, copy_function=os.link)
    for each in (made, made / "agents", made / "instances"):
        each.mkdir(exist_ok=True)
        each.chmod(0o700)
    return made


@pytest.fixture
def options(service: WsMan, root: Path, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "password").write_text(service.password)
    return {
        "host": "127.0.0.1",
        "port": service.port,
        "user": service.user,
        "password": {"file": "password"},
        "tls": False,
        "python": wine.windows_path(wine.windows().python),
        "directory": wine.windows_path(root),
    }


@pytest.fixture
async def driver(
    environment: Environment,
    archive: AgentArchive,
    options: dict[str, Any],
    tmp_path: Path,
) -> AsyncIterator[WinrmDriver]:
    secrets = Secrets(tmp_path / "secrets", {})
    made = WinrmDriver(replace(environment, archive=archive, secrets=secrets))
    yield made
    for owned in await made.list_owned([options]):
        await made.destroy(InstanceRef("", owned.instance, owned.epoch, owned.handle, {}))
    await made.aclose()


def written(root: Path, hub: str, instance: str) -> Path:
    """The instance's directory, before its agent is started."""
    own = root / "instances" / instance
    for path in (own, own / "work"):
        path.mkdir(mode=0o700)
    program = wine.windows_path(root / "agents" / OLD_DIGEST)
    about = {"hub": hub, "epoch": EPOCH, "worker": WORKER}
    about |= {"program": program, "created_at": time.time()}
    config = {
        "hub": "ws://127.0.0.1:9/api/v1/agents/connect",
        "name": WORKER,
        "instance": instance,
        "epoch": EPOCH,
        "containment": "auto",
        "orphan_timeout_s": 1800,
        "workdir": "work",
        "token_file": "token",
    }
    files = {
        "mark.json": json.dumps(about),
        "token": "a-token-of-no-use",
        "agent.json": json.dumps(config),
        "environment.json": json.dumps({"FLAVOUR": "plain"}),
    }
    for name, text in files.items():
        (own / name).touch(mode=0o600)
        (own / name).write_text(text)
    (root / "instances" / f"{instance}.lock").touch(mode=0o600)
    return own


def launch(root: Path, hub: str, instance: str) -> list[str]:
    """What Python was given."""
    program = wine.windows_path(root / "agents" / OLD_DIGEST)
    own = wine.windows_path(root / "instances" / instance)
    return ["-I", "-S", program, "host", "launch", own, "--mark", f"{hub}:{instance}:{EPOCH}"]


@contextlib.contextmanager
def started(start: str, root: Path, hub: str, instance: str) -> Iterator[Path]:
    """The directory of an instance whose agent is about to be there."""
    own, arguments = written(root, hub, instance), launch(root, hub, instance)
    if start == "service":
        python = wine.windows_path(wine.windows().python)
        command = subprocess.list2cmdline([python, *arguments, "--service"])
        wine.windows().call("service.create", f"hostler-{instance}", command)
        wine.windows().call("service.start", f"hostler-{instance}")
        yield own
        return
    pipe = subprocess.PIPE  # what it says goes to its log; Wine cannot give it files
    process = wine.windows().start(*arguments, stdin=pipe, stdout=pipe, stderr=pipe, cwd=own)
    try:
        yield own
    finally:
        process.kill()
        process.communicate(timeout=60)


async def await_record(own: Path) -> Any:
    """The process, as the agent itself has put it on record."""
    async with asyncio.timeout(90):
        while not (own / "process.json").exists():  # noqa: ASYNC110 - another program's file
            await asyncio.sleep(0.05)
    return json.loads((own / "process.json").read_text())


def ref(instance: str, handle: Mapping[str, Any] | None, options: Mapping[str, Any]) -> InstanceRef:
    return InstanceRef(WORKER, instance, EPOCH, handle, options)


@pytest.mark.parametrize(
    ("start", "known_by"),
    [
        ("service", "the list"),
        ("detached", "its stored handle"),
        ("detached", "its mark"),
    ],
)
async def test_it_is_found_and_destroyed(
    driver: WinrmDriver,
    environment: Environment,
    options: dict[str, Any],
    root: Path,
    start: str,
    known_by: str,
) -> None:
    instance, now = new_ulid(), {**options, "start": start}
    with started(start, root, environment.hub, instance) as own:
        process = await await_record(own)
        stored = {
            "version": 1,
            "options": options,
            "directory": options["directory"],
            "process": process,
        }
        async with asyncio.timeout(90):  # on record is a moment before it is in its job
            while (await driver.inspect(ref(instance, stored, now))).presence is Presence.GONE:
                pass
        by_mark = await driver.inspect(ref(instance, None, now))
        assert by_mark.presence is Presence.RUNNING
        (listed,) = await driver.list_owned([now])
        assert (listed.instance, listed.epoch, listed.worker) == (instance, EPOCH, WORKER)
        refs = {
            "its stored handle": ref(instance, stored, {}),
            "its mark": ref(instance, None, now),
            "the list": InstanceRef("", listed.instance, listed.epoch, listed.handle, {}),
        }
        await driver.destroy(refs[known_by])
        assert not own.exists()
        assert list(await driver.list_owned([now])) == []
        gone = await driver.inspect(ref(instance, stored, now))
        assert gone.presence is Presence.GONE
        exists = await asyncio.to_thread(
            wine.windows().call, "service.exists", f"hostler-{instance}"
        )
        assert exists == DOES_NOT_EXIST


async def test_K3_a_service_that_was_made_and_not_started_is_listed_and_removed(
    driver: WinrmDriver, environment: Environment, options: dict[str, Any], root: Path
) -> None:
    """Also where its directory is gone: its command has the mark."""
    instance = new_ulid()
    python = wine.windows_path(wine.windows().python)
    arguments = launch(root, environment.hub, instance)
    command = subprocess.list2cmdline([python, *arguments, "--service"])
    await asyncio.to_thread(wine.windows().call, "service.create", f"hostler-{instance}", command)
    (listed,) = await driver.list_owned([options])
    assert (listed.instance, listed.epoch) == (instance, EPOCH)
    await driver.destroy(InstanceRef("", listed.instance, listed.epoch, listed.handle, {}))
    assert list(await driver.list_owned([options])) == []
