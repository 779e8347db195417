"""What every driver must do whose instances are processes of a machine, beyond `Conformance`.

Subclass `HostConformance`, or `RemoteHostConformance` where the machine is reached by a transport,
in a test module, and give it the fixtures of `Conformance` and a fixture `machine`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from conformance.drivers import Conformance, ref_of, spec_of

from hostler_agent.instances.launch import LOG
from hostler_hub.drivers.contract import Driver
from hostler_hub.drivers.errors import HandleRefused, ProviderFailed
from hostler_hub.lifecycle.model import Presence

Options = Mapping[str, Any]


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Machine:
    """The machine as the tests see it: its agents' directory, and how its service goes and comes.

    `closed_to` are the mode bits that no file with a secret may have.
    """

    directory: Path
    stop: Callable[[], None] = _nothing
    start: Callable[[], None] = _nothing
    closed_to: int = 0o077

    def files(self, instance: str) -> list[Path]:
        """All files, once the instance's agent has written its last and serves its hub."""
        deadline = time.monotonic() + 60
        log = self.directory / "instances" / instance / LOG
        while not (log.exists() and b" serves " in log.read_bytes()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return [path for path in self.directory.rglob("*") if path.is_file()]

    def left(self) -> list[str]:
        """What instances have left, but for the locks that say that they are gone."""
        instances = self.directory / "instances"
        return [each.name for each in instances.iterdir() if each.suffix != ".lock"]


def agents_of(instance: str) -> list[psutil.Process]:
    """The instance's agents; also those of Wine are processes of this machine."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            arguments = process.cmdline()
            if "--mark" in arguments and any(f":{instance}:" in each for each in arguments):
                found.append(process)
    return found


def again(driver: Driver) -> Driver:
    """The driver as a hub has it that was started anew."""
    return type(driver)(driver._environment)  # type: ignore[attr-defined]


class HostConformance(Conformance):
    """Of any machine, the hub's own as well."""

    async def test_G4_found_again_by_a_new_driver(self, driver: Driver, options: Options) -> None:
        spec = spec_of(options)
        handle = await driver.create(spec)
        await driver.aclose()
        reborn = again(driver)
        assert (await reborn.inspect(ref_of(spec, handle))).presence is Presence.RUNNING
        assert [each.instance for each in await reborn.list_owned([options])] == [spec.instance]
        await reborn.destroy(ref_of(spec, handle))
        await reborn.aclose()

    async def test_V14_the_token_is_in_a_private_file_alone(
        self, driver: Driver, options: Options, machine: Machine
    ) -> None:
        spec = spec_of(options)
        handle = await driver.create(spec)
        agents = agents_of(spec.instance)
        assert agents
        for process in agents:
            shown = [*process.cmdline(), *process.environ().values()]
            assert spec.token not in " ".join(shown)
        files = await asyncio.to_thread(machine.files, spec.instance)
        holding = [path for path in files if spec.token.encode() in path.read_bytes()]
        assert [path.name for path in holding] == ["token"]
        assert stat.S_IMODE(holding[0].stat().st_mode) & machine.closed_to == 0
        assert spec.token not in str(handle)
        await driver.destroy(ref_of(spec, handle))
        assert machine.left() == []

    async def test_P7_the_last_words_of_an_agent_that_died_are_evidence(
        self, driver: Driver, options: Options
    ) -> None:
        spec = spec_of(options)
        handle = await driver.create(spec)
        agents = agents_of(spec.instance)
        for process in agents:
            process.kill()
        await asyncio.to_thread(psutil.wait_procs, agents, 60)
        seen = await driver.inspect(ref_of(spec, handle))
        assert seen.presence is Presence.GONE
        assert "last words" in seen.evidence
        texts = await driver.evidence(ref_of(spec, handle))  # type: ignore[attr-defined]
        assert texts["processes"].startswith("pid parent")
        await driver.destroy(ref_of(spec, handle))

    async def test_a_handle_of_another_version_is_refused_by_its_number(
        self, driver: Driver, options: Options
    ) -> None:
        spec = spec_of(options)
        newer = {"version": 4711, "what": "a later hub may write"}
        refused = rf"^{driver.name}: the handle of instance {spec.instance} has version 4711"
        with pytest.raises(HandleRefused, match=refused):
            await driver.inspect(ref_of(spec, newer))
        with pytest.raises(HandleRefused, match="understands"):
            await driver.destroy(ref_of(spec, {"pid": 1}))


class RemoteHostConformance(HostConformance):
    """Of a machine that is reached by a transport."""

    async def test_G2_G3_a_host_that_does_not_answer_is_unknown_and_never_gone(
        self, driver: Driver, options: Options, machine: Machine
    ) -> None:
        spec = spec_of(options)
        handle = await driver.create(spec)
        machine.stop()
        refused = rf"{driver.name}: .*Connection refused"
        evidence = driver.evidence  # type: ignore[attr-defined]
        for call in (driver.inspect, driver.destroy, evidence):
            with pytest.raises(ProviderFailed, match=refused):
                await call(ref_of(spec, handle))
        with pytest.raises(ProviderFailed, match=f"{driver.name}: "):
            await driver.list_owned([options])
        machine.start()
        assert (await driver.inspect(ref_of(spec, handle))).presence is Presence.RUNNING
        await driver.destroy(ref_of(spec, handle))

    async def test_V3_of_what_was_never_sent_nothing_is_left_to_end(
        self, driver: Driver, options: Options, machine: Machine
    ) -> None:
        """Or else a host with a wrong name would keep its worker from ever being used again."""
        machine.stop()
        spec = spec_of(options)
        refused = rf"{driver.name}: .*Connection refused.*host.*port"
        with pytest.raises(ProviderFailed, match=refused):
            await driver.create(spec)
        assert (await driver.inspect(ref_of(spec, None))).presence is Presence.GONE
        await driver.destroy(ref_of(spec, None))
        machine.start()

    async def test_the_agent_is_pushed_once_for_all(
        self, driver: Driver, other_hub_driver: Driver, options: Options, machine: Machine
    ) -> None:
        shutil.rmtree(machine.directory)
        specs = [spec_of(options, worker=f"w-{number}") for number in range(2)]
        handles = [await driver.create(specs[0]), await other_hub_driver.create(specs[1])]
        agents = list((machine.directory / "agents").iterdir())
        archive = driver._environment.archive  # type: ignore[attr-defined]
        assert [each.name for each in agents] == [archive.sha256]
        assert machine.directory.stat().st_mode & machine.closed_to == 0
        await driver.destroy(ref_of(specs[0], handles[0]))
        await other_hub_driver.destroy(ref_of(specs[1], handles[1]))
        assert list((machine.directory / "agents").iterdir()) == agents
        assert machine.left() == []

    async def test_a_host_without_that_python_has_nothing_left_to_end(
        self, driver: Driver, options: Options
    ) -> None:
        spec = spec_of({**options, "python": "python3.99"})
        missing = (
            rf"{driver.name}: .*option 'python': .*'python3\.99'.*install Python 3\.9 or newer"
        )
        with pytest.raises(ProviderFailed, match=missing):
            await driver.create(spec)
        await driver.destroy(ref_of(spec, None))
        reborn = again(driver)
        await reborn.destroy(ref_of(spec, None))  # by the machine's own word, which needs no Python
        await reborn.aclose()

    async def test_V2_no_secret_is_in_a_handle_and_its_references_are(
        self, driver: Driver, options: Options
    ) -> None:
        spec = spec_of(options)
        handle = json.loads(json.dumps(dict(await driver.create(spec))))
        assert handle["options"]["host"] == options["host"]
        kept = [name for name, value in options.items() if isinstance(value, dict)]
        assert kept
        assert all(handle["options"][name]["file"] == options[name]["file"] for name in kept)
        await driver.destroy(ref_of(spec, handle))
