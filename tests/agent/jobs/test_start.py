"""How a job starts, and what it starts with (E4, E13, E15)."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from jobkit import (
    CONTAINMENTS,
    RecordingSink,
    Runner,
    contained,
    missing_controllers,
    open_descriptors,
)

from hostler_agent import machine
from hostler_agent.jobs import choose_containment
from hostler_agent.jobs.errors import ContainmentUnavailable, PlanRefused, StartFailed
from hostler_agent.jobs.plan import Resources
from hostler_agent.jobs.receipt import Ended

HELD = [("cgroup2", "held"), ("cgroup1", "held")]


@pytest.fixture(params=[(name, "spawned") for name in CONTAINMENTS] + HELD, ids="-".join)
async def runner(request, tmp_path):
    """A job whose processes are counted is held until its limit is exact."""
    name, how = request.param
    async with contained(name) as containment:
        made = Runner(containment, tmp_path)
        if how == "held":
            if "pids" in missing_controllers(containment):
                pytest.skip("needs a pids controller, as root")
            made.resources = Resources(processes=100)
        yield made


async def test_e4_a_job_is_in_its_cgroup_from_the_first_instruction(runner, sink):
    await runner.job(runner.plan(["/bin/cat", "/proc/self/cgroup"]), sink).run()
    inside = f"/hostler/{runner.containment.root_name}/c1\n" in sink.text()
    assert inside == (runner.containment.name != "subreaper")


async def test_a_job_starts_clean(runner, sink):
    await runner.job(runner.child("report"), sink).run()
    lines = dict(line.split(" ", 1) for line in sink.text().splitlines())
    own = int(Path("/proc/self/oom_score_adj").read_text())
    # The kernel takes a build before its agent, also where the agent could not guard itself.
    assert int(lines["oom"]) == (0 if own < 0 else min(own + 500, 1000))
    assert lines["descriptors"] == "['0', '1', '2']"
    assert lines["stdin"] == "''"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can lower its oom_score_adj")
async def test_the_jobs_of_a_guarded_agent_are_not_guarded(runner, sink):
    file = Path("/proc/self/oom_score_adj")
    before = file.read_text()
    try:
        machine.guard_against_oom()
        if int(file.read_text()) != -900:
            pytest.skip("needs CAP_SYS_RESOURCE")
        await runner.job(runner.child("report"), sink).run()
    finally:
        file.write_text(before)
    assert "oom 0\n" in sink.text()


async def test_sigpipe_is_not_ignored_in_jobs(runner, sink):
    plan = runner.plan(["/bin/sh", "-c", "grep SigIgn /proc/self/status"])
    await runner.job(plan, sink).run()
    ignored = int(sink.text().split()[1], 16)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGCHLD):
        assert not ignored & 1 << number - 1


async def test_the_initial_input_is_all_the_input(runner, sink):
    data = b"line\n" * 100_000
    plan = replace(runner.plan(["/usr/bin/wc", "-c"]), stdin=data)
    assert (await runner.job(plan, sink).run()).return_code == 0
    assert int(sink.text()) == len(data)


async def test_a_terminal_is_the_job_s_own(runner, sink):
    plan = runner.plan(["/bin/sh", "-c", "test -t 0 && test -t 2 && echo here >/dev/tty"])
    assert (await runner.job(runner.with_pty(plan), sink).run()).return_code == 0
    assert sink.text() == "here\r\n"


async def test_a_job_that_does_not_read_its_input_is_no_failure(runner, sink):
    plan = replace(runner.plan(["/bin/true"]), stdin=b"x" * 1_000_000)
    assert (await runner.job(plan, sink).run()).return_code == 0


@pytest.mark.parametrize("name", ["odd.name", "weird(x86)", "ünïcode"])
async def test_every_name_of_a_variable_arrives(runner, sink, name):
    plan = runner.plan(["/usr/bin/env"])
    plan = replace(plan, environment={**plan.environment, name: "it's = here\nand there"})
    await runner.job(plan, sink).run()
    assert f"{name}=it's = here\nand there\n" in sink.text()


async def test_programs_are_found_by_the_jobs_own_path(runner, sink, tmp_path):
    program = tmp_path / "bin" / "only-here"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    plan = runner.plan(["only-here"])
    plan = replace(plan, environment={"PATH": f"/nowhere:{program.parent}"})
    await runner.job(plan, sink).run()
    assert sink.text() == "found\n"


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("/no/such/program", FileNotFoundError),
        ("no-such-program", FileNotFoundError),
        ("/etc/passwd", PermissionError),
        ("/", PermissionError),
    ],
)
async def test_e15_a_program_that_cannot_run_is_a_typed_failure(runner, sink, program, error):
    with pytest.raises(StartFailed) as failure:
        await runner.job(runner.plan([program]), sink).run()
    assert failure.value.filename == program
    assert isinstance(OSError(failure.value.errno, ""), error)


async def test_e15_a_directory_that_is_gone_is_named(runner, sink):
    plan = replace(runner.plan(["/bin/true"]), workdir="/no/such/directory")
    with pytest.raises(StartFailed, match="/no/such/directory"):
        await runner.job(plan, sink).run()


async def test_e15_a_failed_start_leaves_its_slot_clean(runner, sink):
    plan = runner.plan(["/no/such/program"])
    for _turn in range(2):
        with pytest.raises(StartFailed):
            await runner.job(plan, sink).run()
    descriptors = open_descriptors()
    with pytest.raises(StartFailed):
        await runner.job(plan, sink).run()
    assert open_descriptors() == descriptors
    ok = replace(plan, argv=("/bin/true",))
    assert (await runner.job(ok, sink).run()).return_code == 0


async def test_e13_the_largest_string_that_is_allowed_arrives(runner, sink):
    largest = "x" * (128 * 1024 - 1)
    plan = runner.plan(["/bin/sh", "-c", 'printf %s "$1" | wc -c', "sh", largest])
    await runner.job(plan, sink).run()
    assert int(sink.text()) == len(largest)
    with pytest.raises(PlanRefused, match="argument 4 has 131073 bytes"):
        await runner.job(replace(plan, argv=(*plan.argv[:4], largest + "x")), sink).run()


async def test_e13_nearly_a_mebibyte_of_arguments_arrives(runner, sink):
    plan = runner.plan(["/bin/sh", "-c", 'echo "$#"', "sh", *(["x" * 100_000] * 10)])
    await runner.job(plan, sink).run()
    assert sink.text() == "10\n"


async def test_jobs_that_share_an_id_do_not_share_a_cgroup(runner):
    plan = runner.child("simple")
    sinks = [RecordingSink(), RecordingSink()]
    jobs = [runner.job(plan, sink) for sink in sinks]
    running = [asyncio.ensure_future(job.run()) for job in jobs]
    for sink in sinks:
        await sink.until("Ready")
    jobs[0].interrupt(Ended.KILLED, "enough")
    await running[0]
    if runner.containment.name != "subreaper":
        assert not running[1].done()
    jobs[1].interrupt(Ended.KILLED, "enough")
    await running[1]


@pytest.mark.parametrize("command_id", ["../up", "a/b", "", ".", "..", "ü" * 100, "nul\0"])
async def test_no_id_leads_out_of_the_tree(containment, command_id):
    enclosure = containment.open(command_id)
    for path in getattr(enclosure, "paths", ()):
        assert Path(path).resolve().parent.name == containment.root_name
    await enclosure.empty(1)


def test_an_unknown_containment_is_refused():
    with pytest.raises(ContainmentUnavailable, match="one of auto"):
        choose_containment("magic", "x")
