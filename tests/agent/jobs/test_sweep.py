"""An agent that dies leaves nothing: at once where the spawner lives, else at the next start."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from jobkit import RecordingSink, cgroups, living, marked
from stopping import stop

from hostler_agent.jobs import choose_containment
from hostler_agent.jobs.receipt import Ended

AGENT = """
import asyncio, os, sys
sys.path.insert(0, {tests!r})
from jobkit import cgroups, RecordingSink, Runner
from hostler_agent.jobs import choose_containment
from pathlib import Path

async def main():
    containment = choose_containment({name!r}, {root!r})
    runner, sink = Runner(containment, Path("/")), RecordingSink()
    running = asyncio.ensure_future(runner.job(runner.child(*{words!r}), sink).run())
    await sink.until("Ready")
    print("spawner", containment.spawner.pid)
    print(sink.text(), flush=True)
    await running

asyncio.run(main())
"""


async def start_agent(containment, *words: str):
    """Another agent of the same name, with a job that is Ready; its process and the pids."""
    source = AGENT.format(
        tests=str(Path(__file__).parent),
        name=containment.name,
        root=containment.root_name,
        words=words,
    )
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", source, stdout=asyncio.subprocess.PIPE
    )
    assert agent.stdout is not None
    pids = {}
    while (line := (await agent.stdout.readline()).decode()) != "Ready\n":
        assert line, "the agent has ended early"
        name, pid = line.split()
        pids.setdefault(name, []).append(int(pid))
    return agent, pids


async def gone(pids) -> None:
    """Returns when none of these processes is alive; nobody tells us that a stranger's child is."""
    while living(pids):  # noqa: ASYNC110
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("words", [("tree", "30"), ("ignore_sigterm",)], ids=" ".join)
async def test_e9_killing_the_agent_kills_its_jobs(containment, words):
    agent, pids = await start_agent(containment, *words)
    agent.kill()
    await agent.wait()
    await asyncio.wait_for(gone([*pids.get("pid", []), *pids["spawner"]]), 60)
    assert marked(containment.root_name) == []
    assert cgroups(containment.root_name) == []
    await containment.sweep()


async def test_e5_what_agent_and_spawner_left_is_swept(containment):
    agent, pids = await start_agent(containment, "tree", "30")
    # Whichever of the two saw the other's end first would kill the tree.
    stop(*pids["spawner"])
    agent.kill()
    await gone([agent.pid])
    os.kill(*pids["spawner"], signal.SIGKILL)
    await agent.wait()
    await gone(pids["spawner"])
    assert len(living(pids["pid"])) == 29
    swept = await containment.sweep()
    assert {one.pid for one in swept} >= set(pids["pid"])
    assert living(pids["pid"]) == []


async def test_a_sweep_of_nothing_finds_nothing(runner, sink):
    job = runner.job(runner.child("simple"), sink)
    running = asyncio.ensure_future(job.run())
    await sink.until("Ready")
    job.interrupt(Ended.KILLED, "enough")
    await running
    assert await runner.containment.sweep() == ()


async def test_the_first_job_takes_the_spawner_that_was_warmed_up(runner, sink):
    runner.containment.warm_up()
    runner.containment.warm_up()
    spawner = runner.containment.spawner.pid
    assert spawner is not None
    outcome = await runner.job(runner.plan(["/bin/true"]), sink).run()
    assert (outcome.return_code, runner.containment.spawner.pid) == (0, spawner)


async def test_e20_a_spawner_that_was_killed_is_replaced(runner):
    sink = RecordingSink()
    running = asyncio.ensure_future(runner.job(runner.child("tree", "10"), sink).run())
    await sink.until("Ready")
    spawner = runner.containment.spawner.pid
    os.kill(spawner, signal.SIGKILL)
    outcome = await running
    assert (outcome.receipt.ended, outcome.return_code) == (Ended.LOST, -1)
    assert living(sink.pids) == []
    again = await runner.job(runner.plan(["/bin/true"]), sink).run()
    assert again.return_code == 0
    assert runner.containment.spawner.pid != spawner


async def test_e20_a_new_spawner_hides_nobody_of_the_last_one(runner):
    """A neighbour starts it while the orphans of the one that was killed are not yet found."""
    sinks = [RecordingSink(), RecordingSink()]
    plans = [runner.child("ignore_sigterm"), runner.child("tree", "10")]
    jobs = [runner.job(plan, sink) for plan, sink in zip(plans, sinks)]
    running = [asyncio.ensure_future(job.run()) for job in jobs]
    for sink in sinks:
        await sink.until("Ready")
    os.kill(runner.containment.spawner.pid, signal.SIGKILL)
    again = asyncio.ensure_future(runner.job(runner.plan(["/bin/true"]), RecordingSink()).run())
    outcomes = await asyncio.gather(*running)
    assert [outcome.receipt.ended for outcome in outcomes] == [Ended.LOST] * 2
    assert [outcome.receipt.survivors for outcome in outcomes] == [()] * 2
    assert (await again).receipt.ended in (Ended.EXITED, Ended.LOST)
    assert marked(runner.containment.root_name) == []


async def test_e20_a_spawner_that_dies_over_a_start_is_a_loss(runner, sink):
    runner.containment.warm_up()
    stop(runner.containment.spawner.pid)
    running = asyncio.ensure_future(runner.job(runner.plan(["/bin/true"]), sink).run())
    while not runner.containment.spawner.is_busy:  # noqa: ASYNC110 - the next turn or two
        await asyncio.sleep(0)
    os.kill(runner.containment.spawner.pid, signal.SIGKILL)
    outcome = await running
    assert (outcome.receipt.ended, outcome.return_code) == (Ended.LOST, -1)
    assert outcome.receipt.survivors == ()


async def test_auto_prefers_version_2(containment):
    if containment.name == "cgroup2":
        assert choose_containment("auto", containment.root_name).name == "cgroup2"
