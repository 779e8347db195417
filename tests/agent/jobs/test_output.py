"""What a job writes: floods, terminals, log files, limits (E11, E12)."""

from __future__ import annotations

import asyncio
import os

import psutil
import pytest
from jobkit import RecordingSink, open_descriptors

from hostler_agent.jobs.posix.pipes import READ_BYTES
from hostler_agent.jobs.receipt import Ended
from hostler_agent.jobs.tail import LogFile

MIB = 1024 * 1024


async def test_e11_a_flood_is_taken_in_pieces(runner):
    sink = RecordingSink(keep=False)
    before = psutil.Process().memory_info().rss
    outcome = await runner.job(runner.child("flood", str(300 * MIB)), sink).run()
    assert (sink.total, outcome.return_code) == (300 * MIB, 0)
    assert sink.largest <= READ_BYTES
    assert psutil.Process().memory_info().rss - before < 20 * MIB


async def test_e11_a_hub_that_takes_nothing_stops_the_job_not_the_agent(runner, sink):
    sink.taking.clear()
    running = asyncio.ensure_future(runner.job(runner.child("flood", str(10 * MIB)), sink).run())
    await sink.until("x")
    for _turn in range(50):
        await asyncio.sleep(0)
    assert sink.total <= READ_BYTES
    sink.taking.set()
    assert (await running).return_code == 0
    assert sink.total == 10 * MIB


async def test_e11_being_held_back_is_not_silence(runner, sink, clock):
    sink.taking.clear()
    plan = runner.child("flood", str(MIB), timeout_s=5)
    running = asyncio.ensure_future(runner.job(plan, sink, clock=clock).run())
    await sink.until("x")
    for _turn in range(4):
        await clock.advance(4)
    sink.taking.set()
    assert (await running).receipt.ended == Ended.EXITED


async def test_e12_bytes_come_through_as_they_are(runner, sink):
    script = r"printf '\377\376\0 \303'; printf '\274\r\n\033[2J'; head -c 3000000 /dev/zero"
    await runner.job(runner.plan(["/bin/sh", "-c", script]), sink).run()
    assert bytes(sink.streams["stdout"]) == (b"\xff\xfe\0 \xc3\xbc\r\n\x1b[2J" + b"\0" * 3_000_000)


async def test_a_terminal_is_the_controlling_one(runner, sink):
    plan = runner.with_pty(runner.child("terminal"))
    assert (await runner.job(plan, sink).run()).return_code == 0
    assert sink.text() == "True True True True\r\nReady\r\n"


async def test_a_job_on_a_terminal_is_killed_like_any_other(runner, sink):
    job = runner.job(runner.with_pty(runner.child("tree", "20")), sink)
    running = asyncio.ensure_future(job.run())
    await sink.until("Ready")
    job.interrupt(Ended.KILLED, "enough")
    assert (await running).receipt.survivors == ()


async def test_silence_ends_a_job(runner, sink, clock):
    plan = runner.child("simple", timeout_s=30)
    running = asyncio.ensure_future(runner.job(plan, sink, clock=clock).run())
    await sink.until("Ready")
    await clock.timers(1)
    await clock.advance(29)
    assert not running.done()
    await clock.advance(1.5)
    outcome = await running
    assert (outcome.receipt.ended, outcome.return_code) == (Ended.SILENT, -1)
    assert sink.stops == ["command timed out: 30 seconds without output"]


async def test_output_puts_the_silence_off(runner, sink, clock, tmp_path):
    plan = runner.plan(["/bin/sh", "-c", "echo Ready; read x < go; echo Again; sleep 1000"])
    plan = type(plan)(**{**vars(plan), "limits": type(plan.limits)(timeout_s=30)})
    os.mkfifo(tmp_path / "go")
    running = asyncio.ensure_future(runner.job(plan, sink, clock=clock).run())
    await sink.until("Ready")
    await clock.timers(1)
    await clock.advance(20)
    await asyncio.get_running_loop().run_in_executor(None, (tmp_path / "go").write_text, "x\n")
    await sink.until("Again")
    await clock.advance(20)
    assert not running.done()
    await clock.advance(11)
    assert (await running).receipt.ended == Ended.SILENT


async def test_max_time_ends_a_job_that_talks(runner, sink, clock):
    plan = runner.plan(["/usr/bin/yes"], max_time_s=60)
    sink.keep = False
    running = asyncio.ensure_future(runner.job(plan, sink, clock=clock).run())
    await clock.timers(1)
    await clock.advance(60)
    assert (await running).receipt.ended == Ended.TIMEOUT


async def test_one_line_more_than_max_lines_ends_a_job(runner, sink):
    fits = runner.plan(["/bin/sh", "-c", r"printf '1\n2\r\n3\r'"], max_lines=3)
    assert (await runner.job(fits, sink).run()).receipt.ended == Ended.EXITED
    outcome = await runner.job(runner.plan(["/usr/bin/yes"], max_lines=3), sink).run()
    assert (outcome.receipt.ended, outcome.return_code) == (Ended.TALKATIVE, -1)


@pytest.mark.parametrize(("follow", "expected"), [(False, "old\nfirst\n"), (True, "first\n")])
async def test_a_log_file_is_read_while_it_grows(runner, sink, tmp_path, follow, expected):
    log = tmp_path / "build.log"
    log.write_text("old\n")
    logs = [LogFile("build", str(log), follow)]
    job = runner.job(runner.child("slowly", str(log)), sink, log_files=logs)
    running = asyncio.ensure_future(job.run())
    await sink.until("first", "build")
    assert not running.done()
    job.interrupt(Ended.KILLED, "enough")
    await running
    assert sink.text("build") == expected


async def test_a_log_file_that_is_untouched_is_not_the_commands(runner, sink, tmp_path):
    log = tmp_path / "old.log"
    log.write_text("of another time\n")
    job = runner.job(runner.plan(["/bin/true"]), sink, log_files=[LogFile("old", str(log))])
    await job.run()
    assert "old" not in sink.streams


async def test_what_is_logged_last_is_not_missed(runner, sink, tmp_path):
    log = tmp_path / "new.log"
    plan = runner.plan(["/bin/sh", "-c", f"printf 'bytes \\377' > {log}"])
    await runner.job(plan, sink, log_files=[LogFile("new", str(log))]).run()
    assert bytes(sink.streams["new"]) == b"bytes \xff"


async def test_a_log_file_that_is_a_link_or_a_pipe_is_not_read(runner, sink, tmp_path):
    logs = [LogFile(name, str(tmp_path / name)) for name in ("link", "pipe")]
    plan = runner.plan(["/bin/sh", "-c", "ln -s /etc/passwd link; mkfifo pipe"])
    await runner.job(plan, sink, log_files=logs).run()
    assert (tmp_path / "link").is_symlink()
    assert sink.streams == {}


async def test_jobs_leave_no_descriptor_open(runner, sink):
    await runner.job(runner.plan(["/bin/true"]), sink).run()
    before = open_descriptors()
    for _turn in range(5):
        await runner.job(runner.plan(["/bin/echo", "x"]), sink).run()
        await runner.job(runner.with_pty(runner.plan(["/bin/echo", "x"])), sink).run()
    assert open_descriptors() == before
