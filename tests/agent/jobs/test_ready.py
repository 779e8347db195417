"""Processes that are forked ahead: each becomes one job or none, and is not missed if it dies."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from jobkit import RecordingSink, Runner, living, marked

from hostler_agent.jobs.plan import JobPlan, Resources, View
from hostler_agent.jobs.posix import ready
from hostler_agent.jobs.posix.cgroup import CgroupContainment
from hostler_agent.jobs.receipt import Ended

WHERE = ["/bin/cat", "/proc/self/cgroup"]


@pytest.fixture
def in_cgroup(runner, monkeypatch):
    if runner.containment.name == "subreaper":
        pytest.skip("where there is no cgroup, nothing plain is forked ahead")
    monkeypatch.setattr(ready, "PAUSE_S", 0.0)
    return runner


async def waiting(runner: Runner, count: int = 1) -> list[int]:
    """The processes that wait for jobs, when there are so many and they are in their cgroups."""
    assert isinstance(runner.containment, CgroupContainment)
    while True:
        paths = [path for place in runner.containment.ready.places for path in place.paths]
        found = [int(x) for path in paths for x in Path(path, "cgroup.procs").read_text().split()]
        if len(found) == count * len(runner.containment.roots):
            return sorted(set(found))
        await asyncio.sleep(0.001)


async def run(runner: Runner, plan: JobPlan) -> str:
    sink = RecordingSink()
    outcome = await runner.job(plan, sink).run()
    assert (outcome.return_code, outcome.receipt.ended) == (0, Ended.EXITED), sink.text("stderr")
    assert outcome.receipt.escaped == ()
    assert outcome.receipt.pids_seen == 1
    return sink.text()


async def test_e4_a_job_takes_the_place_that_was_made_for_it_and_none_twice(in_cgroup):
    assert "/c1\n" in await run(in_cgroup, in_cgroup.plan(WHERE))
    pids = set()
    for number in range(1, 5):
        (pid,) = await waiting(in_cgroup)
        said = await run(
            in_cgroup, in_cgroup.plan(["/bin/sh", "-c", "cat /proc/$$/cgroup; echo $$"])
        )
        assert f"/ready-{number}\n" in said
        assert int(said.splitlines()[-1]) == pid
        pids.add(pid)
    assert len(pids) == 4


async def test_a_job_does_without_a_place_whose_process_is_dead(in_cgroup):
    await run(in_cgroup, in_cgroup.plan(["/bin/true"]))
    (pid,) = await waiting(in_cgroup)
    os.kill(pid, signal.SIGKILL)  # perhaps it is still dying when the job comes
    assert "/ready-1\n" in await run(in_cgroup, in_cgroup.plan(WHERE))


async def test_e20_places_end_with_their_spawner_and_are_cleared(in_cgroup):
    await run(in_cgroup, in_cgroup.plan(["/bin/true"]))
    pids = await waiting(in_cgroup)
    spawner = in_cgroup.containment.spawner.pid
    os.kill(spawner, signal.SIGKILL)
    while living(pids):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)
    while in_cgroup.containment.spawner.pid == spawner:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)
    assert "/c2\n" in await run(in_cgroup, in_cgroup.plan(WHERE))
    await waiting(in_cgroup)
    assert "/ready-2\n" in await run(in_cgroup, in_cgroup.plan(WHERE))
    root = Path(in_cgroup.containment.roots[0])
    assert not (root / "ready-1").exists()


async def test_e3_a_limit_holds_in_a_place_that_was_made_ahead(in_cgroup):
    await run(in_cgroup, in_cgroup.plan(["/bin/true"]))
    await waiting(in_cgroup)
    plan = replace(in_cgroup.child("fork_until_refused"), resources=Resources(processes=3))
    sink = RecordingSink()
    await in_cgroup.job(plan, sink).run()
    assert sink.text() == "children 2\n"


async def test_as_many_are_made_as_jobs_run_but_not_without_end(in_cgroup):
    sinks = [RecordingSink() for _ in range(ready.MOST + 2)]
    jobs = [in_cgroup.job(in_cgroup.child("simple"), sink) for sink in sinks]
    running = [asyncio.ensure_future(job.run()) for job in jobs]
    for sink in sinks:
        await sink.until("Ready")
    assert len(await waiting(in_cgroup, ready.MOST)) == ready.MOST
    for job in jobs:
        job.interrupt(Ended.KILLED, "enough")
    outcomes = await asyncio.gather(*running)
    assert [outcome.receipt.escaped for outcome in outcomes] == [()] * len(jobs)
    assert len(await waiting(in_cgroup, ready.MOST)) == ready.MOST


async def test_who_waits_for_a_job_is_swept_by_nobody(in_cgroup):
    await run(in_cgroup, in_cgroup.plan(["/bin/true"]))
    pids = await waiting(in_cgroup)
    assert await in_cgroup.containment.sweep() == ()
    assert await waiting(in_cgroup) == pids
    assert marked(in_cgroup.containment.root_name) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs CAP_SYS_ADMIN, for mount namespaces")
async def test_a_plain_job_is_in_the_machines_namespace_whoever_waited_for_it(in_cgroup):
    viewing = replace(in_cgroup.plan(["/bin/true"]), view=View(private_tmp=True), workdir="/")
    outcome = await in_cgroup.job(viewing, RecordingSink()).run()
    if outcome.receipt.missing:
        pytest.skip("needs CAP_SYS_ADMIN, for mount namespaces")
    await waiting(in_cgroup)
    namespaces = ["/bin/readlink", "/proc/self/ns/mnt"]
    ours = Path("/proc/self/ns/mnt").readlink()
    assert await run(in_cgroup, in_cgroup.plan(namespaces)) == f"{ours}\n"
