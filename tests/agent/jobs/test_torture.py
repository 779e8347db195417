"""The tortures that a build worker meets: each is in the benchmarks, too, beside a stock worker.

What a job leaves is counted here by its marks in /proc, never by what the containment says.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import signal
import sys
from pathlib import Path

import pytest
from jobkit import RecordingSink, Runner, cgroups, living, marked
from test_sweep import gone, start_agent

from hostler_agent.jobs.receipt import Ended, KillReceipt

LANES = 8

# Forks twice, takes a session of its own, and ends without waiting for either.
ESCAPE = "(setsid sleep 1000 </dev/null >/dev/null 2>&1 &)"


async def torture(runner: Runner, count: int) -> list[KillReceipt]:
    async def lane(turns: int) -> list[KillReceipt]:
        receipts = []
        for _ in range(turns):
            plan = runner.plan(["/bin/sh", "-c", ESCAPE])
            receipts.append((await runner.job(plan, RecordingSink()).run()).receipt)
        return receipts

    turns = [len(range(number, count, LANES)) for number in range(LANES)]
    return [receipt for receipts in await asyncio.gather(*map(lane, turns)) for receipt in receipts]


@pytest.mark.timeout(120)
async def test_e2_five_hundred_escapes_leave_nobody_and_whole_receipts(runner):
    # A subreaper looks through /proc for each of them, which takes it ten times as long.
    count = 100 if runner.containment.name == "subreaper" else 500
    receipts = await torture(runner, count)
    assert marked(runner.containment.root_name) == []
    assert len(receipts) == count
    for receipt in receipts:
        assert (receipt.ended, receipt.exit_code) == (Ended.EXITED, 0)
        assert receipt.containment == runner.containment.name
        assert (receipt.survivors, receipt.held_output) == ((), ())
        assert receipt.usage.cpu_s is not None
    # Whoever had escaped by the time that its command ended was met, and not only the command.
    assert sum(receipt.pids_seen for receipt in receipts) > count
    assert all(receipt.pids_seen >= 1 for receipt in receipts)


@pytest.mark.parametrize(
    "words", [("ignore_sigterm",), ("stopped",), ("tree", "200")], ids=" ".join
)
async def test_e9_an_agent_killed_in_the_middle_leaves_nothing(containment, words):
    agent, pids = await start_agent(containment, *words)
    agent.kill()
    await agent.wait()
    await asyncio.wait_for(gone([*pids.get("pid", []), *pids["spawner"]]), 60)
    assert marked(containment.root_name) == []
    assert cgroups(containment.root_name) == []
    await containment.sweep()


async def test_e9_an_agent_killed_while_jobs_escape_leaves_nothing(containment):
    agent, pids = await start_agent(containment, "tree", "50")
    stopped = [pid for pid in pids["pid"] if pid % 2]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    agent.kill()
    await agent.wait()
    await asyncio.wait_for(gone([*pids["pid"], *pids["spawner"]]), 60)
    assert marked(containment.root_name) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a process to another user")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv: apt install util-linux")
@pytest.mark.parametrize("detached", ["setsid", "same session"])
async def test_v10_processes_of_another_user_die_with_the_command(runner, sink, detached):
    """As after `sudo -u somebody`: their environment is not the job's, and so are their ids."""
    nobody = pwd.getpwnam("nobody")
    other = f"setpriv --reuid={nobody.pw_uid} --regid={nobody.pw_gid} --clear-groups"
    how = "setsid " if detached == "setsid" else ""
    leave = f"env -i {how}sh -c 'echo pid $$; echo Ready; exec sleep 1000' &"
    plan = runner.plan([*other.split(), "/bin/sh", "-c", f"echo pid $$; {leave} wait"])
    job = runner.job(plan, sink)
    running = asyncio.ensure_future(job.run())
    await sink.until("Ready")
    assert len(sink.pids) == 2
    assert {Path(f"/proc/{pid}").stat().st_uid for pid in sink.pids} == {nobody.pw_uid}
    job.interrupt(Ended.KILLED, "enough")
    outcome = await running
    assert living(sink.pids) == []
    assert outcome.receipt.survivors == ()


UNPRIVILEGED = """
import asyncio, json, os, sys
sys.path.insert(0, {tests!r})
from jobkit import Polls, RecordingSink, Runner
from hostler_agent.jobs import choose_containment
from hostler_agent.jobs.posix import procfs
from hostler_agent.jobs.receipt import Ended
from pathlib import Path

procfs.PollDeadline = Polls

async def main():
    containment = choose_containment({name!r}, {root!r})
    runner, sink = Runner(containment, Path("/")), RecordingSink()
    job = runner.job(runner.plan({argv!r}), sink)
    running = asyncio.ensure_future(job.run())
    await sink.until("Ready")
    job.interrupt(Ended.KILLED, "enough")
    outcome = await running
    survivors = [(one.pid, one.name) for one in outcome.receipt.survivors]
    print(json.dumps([outcome.receipt.ended.value, survivors]), flush=True)
    # It would go on trying for a while.
    os.kill(containment.spawner.pid, 9)
    os._exit(0)

asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a process to another user")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv: apt install util-linux")
async def test_v10_who_may_not_be_killed_stands_in_the_receipt(containment):
    """`sudo` below an agent that is no root: for the kernel, a user whose processes we may not
    signal. Only version 2 of cgroups kills them all the same."""
    nobody = pwd.getpwnam("nobody")
    # The program that says Ready is the one that stays: its name is in the receipt.
    argv = ["setpriv", f"--reuid={nobody.pw_uid}", "/bin/sh", "-c", "echo Ready; kill -STOP $$"]
    source = UNPRIVILEGED.format(
        tests=str(Path(__file__).parent),
        name=containment.name,
        root=containment.root_name,
        argv=argv,
    )
    agent = await asyncio.create_subprocess_exec(
        *("setpriv", "--bounding-set=-kill", sys.executable, "-c", source),
        stdout=asyncio.subprocess.PIPE,
    )
    assert agent.stdout is not None
    ended, survivors = json.loads(await asyncio.wait_for(agent.stdout.readline(), 60))
    await agent.wait()
    assert ended == "killed"
    if containment.name == "cgroup2":
        assert survivors == []
        assert await containment.sweep() == ()  # the cgroups that were made ahead are empty
        return
    ((pid, name),) = survivors
    assert name == "sh"
    # We may; and whoever starts the agent again as somebody who may is rid of it.
    assert [one.pid for one in await containment.sweep()] == [pid]


async def test_e1_all_sorts_of_stubborn_children_end_within_one_deadline(runner):
    """SIGTERM ignored, stopped, daemons, a tree: side by side, and the agent has its turn."""
    ways = [("ignore_sigterm",), ("stopped",), ("tree", "60"), ("process_group",)]
    sinks = [RecordingSink() for _ in ways]
    jobs = [
        runner.job(runner.child(*words, sigterm_time_s=0.2), sink)
        for words, sink in zip(ways, sinks)
    ]
    running = [asyncio.ensure_future(job.run()) for job in jobs]
    for sink in sinks:
        await sink.until("Ready")
    for job in jobs:
        job.interrupt(Ended.KILLED, "enough")
    outcomes = await asyncio.wait_for(asyncio.gather(*running), 60)
    assert [outcome.receipt.ended for outcome in outcomes] == [Ended.KILLED] * len(ways)
    assert [outcome.receipt.survivors for outcome in outcomes] == [()] * len(ways)
    assert marked(runner.containment.root_name) == []


async def test_e3_a_host_answers_while_a_fork_bomb_is_bounded(runner, sink, monkeypatch):
    if runner.containment.name == "subreaper":
        pytest.skip("needs a pids controller, which a subreaper has not")
    monkeypatch.setattr("hostler_agent.jobs.posix.cgroup.MAX_PIDS", 40)
    bomb = runner.job(runner.child("bomb"), sink)
    running = asyncio.ensure_future(bomb.run())
    await sink.until("Ready")
    other = await runner.job(runner.plan(["/bin/true"]), RecordingSink()).run()
    assert (other.return_code, running.done()) == (0, False)
    assert len(marked(runner.containment.root_name)) <= 41
    bomb.interrupt(Ended.KILLED, "enough")
    assert (await asyncio.wait_for(running, 60)).receipt.survivors == ()
    assert marked(runner.containment.root_name) == []
