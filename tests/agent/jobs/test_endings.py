"""However a job ends, nothing of it is alive afterwards (E1, E2, E8, V10)."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
from jobkit import RecordingSink, Runner, VirtualClock, living, marked

from hostler_agent.jobs.posix import procfs
from hostler_agent.jobs.receipt import Ended


async def end(runner: Runner, sink: RecordingSink, *words: str, **limits):
    """Interrupts the child once it is ready."""
    job = runner.job(runner.child(*words, **limits), sink)
    running = asyncio.ensure_future(job.run())
    await sink.until("Ready")
    job.interrupt(Ended.KILLED, "enough")
    outcome = await running
    assert outcome.receipt.survivors == ()
    assert living(sink.pids) == []
    assert marked(runner.containment.root_name) == []
    return outcome


async def test_a_command_that_ends_by_itself_reports_its_exit_code(runner, sink):
    plan = runner.plan(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"])
    outcome = await runner.job(plan, sink).run()
    assert (sink.text("stdout"), sink.text("stderr")) == ("out\n", "err\n")
    receipt = outcome.receipt
    assert (receipt.ended, receipt.exit_code, outcome.return_code) == (Ended.EXITED, 3, 3)
    assert receipt.containment == runner.containment.name
    assert (receipt.pids_seen, receipt.survivors, receipt.held_output) == (1, (), ())
    assert receipt.usage.cpu_s is not None
    assert receipt.usage.cpu_s < 5
    assert receipt.usage.peak_memory_bytes is not None
    assert receipt.usage.peak_memory_bytes > 100_000


async def test_a_command_that_a_signal_ends_has_return_code_minus_one(runner, sink):
    outcome = await runner.job(runner.plan(["/bin/sh", "-c", "kill -9 $$"]), sink).run()
    assert (outcome.receipt.ended, outcome.signal) == (Ended.SIGNALLED, signal.SIGKILL)
    assert (outcome.receipt.exit_code, outcome.return_code) == (None, -1)


async def test_interrupt_kills_at_once_without_a_sigterm_time(runner, sink):
    outcome = await end(runner, sink, "obey_sigterm")
    assert (outcome.receipt.ended, outcome.signal) == (Ended.KILLED, signal.SIGKILL)
    assert (outcome.return_code, sink.stops) == (-1, ["enough"])


async def test_interrupt_before_the_start_counts(runner, sink):
    job = runner.job(runner.child("simple"), sink)
    job.interrupt(Ended.KILLED, "early")
    outcome = await job.run()
    assert (outcome.receipt.ended, outcome.return_code) == (Ended.KILLED, -1)


async def test_e1_sigterm_comes_first_where_it_was_asked_for(runner, sink):
    outcome = await end(runner, sink, "obey_sigterm", sigterm_time_s=60)
    assert (outcome.receipt.exit_code, outcome.return_code, outcome.signal) == (7, 7, None)


async def test_e1_who_ignores_sigterm_is_killed_after_the_grace(runner, sink, clock: VirtualClock):
    plan = runner.child("ignore_sigterm", sigterm_time_s=10)
    job = runner.job(plan, sink, clock=clock)
    running = asyncio.ensure_future(job.run())
    await sink.until("Ready")
    job.interrupt(Ended.KILLED, "enough")
    await clock.timers(1)
    await clock.advance(9.9)
    assert marked(runner.containment.root_name) != []
    await clock.advance(0.2)
    outcome = await running
    assert (outcome.signal, outcome.receipt.survivors) == (signal.SIGKILL, ())
    assert marked(runner.containment.root_name) == []


async def test_e1_sigterm_reaches_a_stopped_process(runner, sink):
    outcome = await end(runner, sink, "stopped", sigterm_time_s=60)
    assert outcome.signal == signal.SIGTERM


@pytest.mark.parametrize("words", [("simple",), ("stopped",), ("process_group",)], ids=" ".join)
async def test_interrupt_kills_the_whole_group(runner, sink, words):
    outcome = await end(runner, sink, *words)
    assert outcome.receipt.pids_seen >= len(sink.pids) + 1


async def test_interrupt_kills_a_tree_of_two_hundred(runner, sink):
    outcome = await end(runner, sink, "tree", "200")
    assert len(sink.pids) >= 199
    assert outcome.receipt.pids_seen >= 200


@pytest.mark.parametrize("session", ["setsid", "same session"])
@pytest.mark.parametrize("environment", ["bare", "marked"])
async def test_e2_who_forks_twice_dies_with_the_command(runner, sink, session, environment):
    plan = runner.child("escape", "quiet", session, environment)
    outcome = await runner.job(plan, sink).run()
    assert outcome.receipt.exit_code == 0
    assert len(sink.pids) == 1
    assert living(sink.pids) == []
    assert outcome.receipt.pids_seen == 2
    assert outcome.receipt.held_output == ()


@pytest.mark.parametrize("containment", ["subreaper"], indirect=True)
async def test_e2_whose_parent_ends_during_the_look_is_not_passed_over(
    runner, sink, tmp_path, monkeypatch
):
    """It was below its parent when the spawner's children were listed, and is one of them now."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    real = procfs.children

    def children(pid: int) -> list[int]:
        listed = real(pid)
        monkeypatch.setattr(procfs, "children", real)
        pipe.write_text("end")
        while set(listed) & set(real(pid)):
            time.sleep(0.001)
        return listed

    monkeypatch.setattr(procfs, "children", children)
    outcome = await runner.job(runner.child("leave_a_parent", str(pipe)), sink).run()
    assert outcome.receipt.exit_code == 0
    assert len(sink.pids) == 1
    assert living(sink.pids) == []


async def test_e8_a_daemon_that_holds_the_output_gets_five_seconds(runner, sink, clock):
    plan = runner.child("escape", "setsid")
    running = asyncio.ensure_future(runner.job(plan, sink, clock=clock).run())
    await sink.until("Ready")
    await clock.timers(1)
    await clock.advance(4.9)
    assert len(living(sink.pids)) == 1
    await clock.advance(0.2)
    outcome = await running
    assert living(sink.pids) == []
    (held,) = outcome.receipt.held_output
    assert held.startswith("python")
    assert (outcome.receipt.ended, outcome.receipt.exit_code) == (Ended.EXITED, 0)


async def test_interrupt_ends_the_drain_too(runner, sink, clock):
    job = runner.job(runner.child("escape", "setsid"), sink, clock=clock)
    running = asyncio.ensure_future(job.run())
    await sink.until("Ready")
    await clock.timers(1)
    job.interrupt(Ended.KILLED, "enough")
    assert (await running).receipt.ended == Ended.KILLED
    assert living(sink.pids) == []


async def test_cancelling_the_run_leaves_nothing(runner, sink):
    running = asyncio.ensure_future(runner.job(runner.child("tree", "20"), sink).run())
    await sink.until("Ready")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert living(sink.pids) == []
    assert marked(runner.containment.root_name) == []


async def test_e3_a_fork_bomb_is_bounded_and_killed(runner, sink, monkeypatch):
    if runner.containment.name == "subreaper":
        pytest.skip("needs a pids controller, which a subreaper has not")
    monkeypatch.setattr("hostler_agent.jobs.posix.cgroup.MAX_PIDS", 100)
    outcome = await end(runner, sink, "bomb")
    assert 50 <= outcome.receipt.pids_seen <= 101


@pytest.mark.timeout(120)
async def test_e2_a_hundred_quick_escapes_leave_nobody(runner):
    ways = [("quiet", *session, *bare) for session in ((), ("setsid",)) for bare in ((), ("bare",))]

    async def lane(number: int) -> list[int]:
        pids = []
        for turn in range(25):
            sink = RecordingSink()
            plan = runner.child("escape", *ways[(number + turn) % 4])
            outcome = await runner.job(plan, sink).run()
            assert outcome.receipt.survivors == ()
            pids += sink.pids
        return pids

    pids = [pid for lane_pids in await asyncio.gather(*map(lane, range(4))) for pid in lane_pids]
    assert len(pids) == 100
    assert living(pids) == []


@pytest.mark.parametrize("hiding", [("setsid", "bare"), ("setsid",), ("bare",), ()], ids=str)
async def test_e2_who_hides_its_origin_dies_with_its_own_job_not_after_the_others(runner, hiding):
    """Older and younger jobs run on beside it: none of them need end first, none is hurt."""
    sinks = [RecordingSink(), RecordingSink(), RecordingSink()]
    older = runner.job(runner.child("tree", "5"), sinks[0])
    running = [asyncio.ensure_future(older.run())]
    await sinks[0].until("Ready")
    plan = runner.child("escape", "quiet", "linger", *hiding)
    job = runner.job(plan, sinks[1])
    escaping = asyncio.ensure_future(job.run())
    await sinks[1].until("Ready")
    younger = runner.job(runner.child("tree", "5"), sinks[2])
    running.append(asyncio.ensure_future(younger.run()))
    await sinks[2].until("Ready")
    job.interrupt(Ended.KILLED, "enough")
    receipt = (await escaping).receipt
    assert living(sinks[1].pids) == []
    assert (receipt.survivors, receipt.pids_seen) == ((), 2)
    for sink in (sinks[0], sinks[2]):
        assert len(living(sink.pids)) == 4
    for one in (older, younger):
        one.interrupt(Ended.KILLED, "enough")
    await asyncio.gather(*running)


async def test_a_job_that_never_pauses_leaves_the_agent_its_turn(runner):
    """E11: neither its pipe nor its sink ever waits, and still it can be interrupted."""
    sink = RecordingSink(keep=False)
    job = runner.job(runner.plan(["/usr/bin/yes"]), sink)
    asyncio.get_running_loop().call_later(0.05, job.interrupt, Ended.KILLED, "enough")
    assert (await job.run()).receipt.ended == Ended.KILLED


async def test_a_sink_that_fails_ends_the_job(runner):
    class Failing(RecordingSink):
        async def take_output(self, stream: str, data: bytes) -> None:
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        await runner.job(runner.plan(["/usr/bin/yes"]), Failing()).run()
    assert marked(runner.containment.root_name) == []
