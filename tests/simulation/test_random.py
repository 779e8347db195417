"""Random scenarios keep the invariants; and the simulation itself can be trusted."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from simulation.__main__ import replay, sweep
from simulation.cases import simulated
from simulation.generator import run
from simulation.loop import Process, Stuck, VirtualLoop
from simulation.machine import script
from simulation.observer import Violated
from simulation.provider import Outcome
from simulation.world import World, simulate

from hostler_agent.wire.extension import Output
from hostler_hub.builds.command import CommandRun
from hostler_hub.builds.logs import LogWriter

TESTS = Path(__file__).parents[1]


@pytest.fixture
def loses_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that loses a byte of each piece."""
    whole = CommandRun._append

    def lossy(self: CommandRun, log: LogWriter, key: str, output: Output) -> object:
        return whole(self, log, key, replace(output, data=output.data[:-1]))

    monkeypatch.setattr(CommandRun, "_append", lossy)


@pytest.mark.timeout(600)
def test_V1_to_V18_hold_in_200_random_scenarios() -> None:
    """In processes of their own, so that two cores are used. A failing seed says how to replay."""
    command = [sys.executable, "-m", "simulation", "--seeds", "200", "--jobs", "2"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_seed_has_the_same_history_each_time() -> None:
    assert run(3).digest() == run(3).digest()
    assert run(3).digest() != run(4).digest()


@pytest.mark.timeout(120)
def test_a_replay_in_another_process_tells_the_same_history() -> None:
    def told(hashes: str) -> str:
        command = [sys.executable, "-m", "simulation", "--seed", "5"]
        environment = {**os.environ, "PYTHONPATH": str(TESTS), "PYTHONHASHSEED": hashes}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout

    first = told("1")
    assert first.splitlines()[-1].startswith("all invariants hold")
    assert first == told("2")


@pytest.mark.timeout(120)
def test_a_seed_that_fails_is_told_with_how_to_replay_it(
    loses_output: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(range(4), jobs=1) == 1
    failed = re.search(
        r"FAILED seed (\d+): .*\n +(.+)\n +replay: make simulate SEED=\1", capsys.readouterr().out
    )
    assert failed is not None
    assert replay(int(failed[1])) == 1
    history = capsys.readouterr().out.splitlines()
    assert history[0].endswith("hub 1 starts")
    assert history[-1] == failed[2]


# --- whoever breaks an invariant is caught -------------------------------------------------------


def _caught(scenario: object, what: str) -> None:
    with pytest.raises(Violated, match=what):
        simulate(scenario)  # type: ignore[arg-type]


def test_V3_a_driver_that_lies_is_caught() -> None:
    async def scenario(world: World) -> None:
        world.provider.will("destroy", Outcome.LIES)
        await world.define("w")
        await world.ended(await world.submit())
        await world.until(lambda: not world.life("w").leases)
        world.network.partition(world.machine().id)  # it does not hear that it is to go
        await world.insubstantiate("w")
        await world.state("latent")

    _caught(scenario, "V3")


def test_V3_a_driver_that_lies_now_and_then_is_caught_at_random_too() -> None:
    def tamper(world: World) -> None:
        world.provider.script["destroy"].extend([Outcome.LIES] * 20)

    def is_caught(seed: int) -> bool:
        try:
            run(seed, tamper)
        except AssertionError:
            return True
        return False

    assert sum(map(is_caught, range(12))) > 3


def test_V7_a_hub_that_loses_output_is_caught(loses_output: None) -> None:
    async def scenario(world: World) -> None:
        await world.define("w")
        await world.ended(await world.submit(*script(lines=1)))

    _caught(scenario, "V7")


def test_V6_a_build_that_is_forgotten_is_caught() -> None:
    async def scenario(world: World) -> None:
        await world.define("w")
        build = await world.submit()
        await world.ended(build)
        world.builds.append("01ARZ3NDEKTSV4RRFFQ69G5FAV")  # accepted, as far as its owner knows

    _caught(scenario, "V6")


def test_V17_a_world_that_does_not_come_to_rest_is_caught() -> None:
    async def scenario(world: World) -> None:
        await world.define("w", driver_options={"attaches": False})
        await world.submit()

    with pytest.raises(AssertionError, match="V17"):
        simulate(scenario)


# --- the loop -----------------------------------------------------------------------------------


@simulated()
async def test_time_passes_only_when_everybody_waits(world: World) -> None:
    began = world.loop.now
    await asyncio.sleep(86400)
    assert world.loop.now - began == pytest.approx(86400)


def test_a_loop_in_which_nothing_can_happen_says_so() -> None:
    loop = VirtualLoop()
    waits = loop.create_future()
    with pytest.raises(Stuck, match="nothing is left"):
        loop.run_until_complete(waits)
    loop.close()


def test_a_killed_process_runs_nothing_not_even_its_finally() -> None:
    loop, said = VirtualLoop(), []

    async def live() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            said.append("finally")

    async def world() -> list[str]:
        process = Process(loop, "p")
        process.spawn(live(), "life")
        await asyncio.sleep(1)
        process.kill()
        await asyncio.sleep(100)
        return list(said)

    assert loop.run_until_complete(world()) == []
    loop.bury_all()
    loop.close()


@pytest.mark.parametrize(("how", "woke_at"), [("stop", 60.0), ("suspend", 65.0)])
def test_a_stopped_process_is_late_and_a_suspended_one_has_slept(how: str, woke_at: float) -> None:
    loop, woke = VirtualLoop(), []

    async def live() -> None:
        await asyncio.sleep(10)
        woke.append(loop.now)

    async def world() -> None:
        process = Process(loop, "p")
        process.spawn(live(), "life")
        await asyncio.sleep(5)
        getattr(process, how)()
        await asyncio.sleep(55)
        process.resume() if how == "stop" else process.wake()
        await asyncio.sleep(20)

    loop.run_until_complete(world())
    assert woke == [pytest.approx(woke_at)]
    loop.close()
