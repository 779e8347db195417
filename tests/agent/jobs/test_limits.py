"""What a job may use, with the kernel's own controllers; what cannot be had is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from jobkit import RecordingSink, Runner, cgroups, marked, missing_controllers

from hostler_agent.jobs.errors import LimitUnavailable, StartFailed
from hostler_agent.jobs.plan import Resources
from hostler_agent.jobs.posix import limits, mounts
from hostler_agent.jobs.posix.cgroup import CgroupContainment, CgroupEnclosure
from hostler_agent.jobs.posix.limits import Hierarchy, Limiter
from hostler_agent.jobs.posix.spawn import Placement
from hostler_agent.jobs.receipt import Ended, Usage

MEBIBYTE = 2**20


def limited(runner: Runner, *words: str, **resources: int):
    return replace(runner.child(*words), resources=Resources(**resources))


@pytest.fixture
def controlled(runner: Runner):
    """A containment that can limit jobs; in which of the machine's ways is its own business."""
    if missing := missing_controllers(runner.containment):
        pytest.skip(f"needs the controllers {sorted(missing)}: cgroups, as root")
    return runner


async def test_a_job_within_its_limits_runs(controlled, sink):
    plan = limited(controlled, "hog", str(8 * MEBIBYTE), memory_bytes=64 * MEBIBYTE, processes=4)
    receipt = (await controlled.job(plan, sink).run()).receipt
    assert (receipt.ended, receipt.exit_code) == (Ended.EXITED, 0)
    assert receipt.usage.oom_kills == 0
    peak = receipt.usage.peak_memory_bytes
    assert peak is not None
    assert 8 * MEBIBYTE <= peak <= 64 * MEBIBYTE


async def test_who_takes_too_much_memory_is_ended_by_the_kernel_and_the_receipt_says_so(
    controlled, sink
):
    plan = limited(controlled, "hog", str(256 * MEBIBYTE), memory_bytes=48 * MEBIBYTE)
    outcome = await controlled.job(plan, sink).run()
    assert "taken" not in sink.text()
    receipt = outcome.receipt
    assert (receipt.ended, receipt.exit_code, outcome.return_code) == (Ended.OOM_KILLED, None, -1)
    assert receipt.usage.oom_kills == 1
    assert receipt.usage.peak_memory_bytes == pytest.approx(48 * MEBIBYTE, rel=0.05)
    assert marked(controlled.containment.root_name) == []
    # The spawner has not been taken with it.
    again = await controlled.job(controlled.plan(["/bin/true"]), RecordingSink()).run()
    assert again.return_code == 0


async def test_a_child_that_is_taken_for_memory_is_counted(controlled, sink):
    plan = limited(controlled, "hog_below", str(256 * MEBIBYTE), memory_bytes=48 * MEBIBYTE)
    receipt = (await controlled.job(plan, sink).run()).receipt
    assert (receipt.ended, receipt.exit_code) == (Ended.EXITED, 3)
    assert receipt.usage.oom_kills == 1


@pytest.mark.parametrize("processes", [1, 5])
async def test_e3_a_job_has_as_many_processes_as_it_asked_for(controlled, sink, processes):
    plan = limited(controlled, "fork_until_refused", processes=processes)
    outcome = await controlled.job(plan, sink).run()
    assert (outcome.return_code, sink.text()) == (0, f"children {processes - 1}\n")


async def test_e15_a_cgroup_that_cannot_be_entered_starts_nothing(controlled, sink, monkeypatch):
    plan = limited(controlled, "simple", processes=3)
    place = Placement([("/proc/self/no-such-file", "/proc/self/cgroup")])
    monkeypatch.setattr(CgroupEnclosure, "_place", lambda *_given: place)
    with pytest.raises(StartFailed, match=r"^entering its cgroup \(/proc/self/no-such-file\): No"):
        await controlled.job(plan, sink).run()
    assert (sink.text(), marked(controlled.containment.root_name)) == ("", [])


async def test_a_limit_of_processor_time_holds_for_all_processors(controlled, sink):
    plan = limited(controlled, "spin", "1", cpu_percent=10)
    begun = time.monotonic()
    receipt = (await controlled.job(plan, sink).run()).receipt
    took_s = time.monotonic() - begun  # on a busy machine the two do not begin at the same time
    cpu_s = receipt.usage.cpu_s
    assert cpu_s is not None
    # A period more for each that had just begun.
    assert cpu_s <= 0.1 * took_s * (os.cpu_count() or 1) * 1.3 + 0.1


async def test_limits_leave_no_cgroup_behind(controlled, sink):
    resources = {"memory_bytes": 64 * MEBIBYTE, "processes": 10, "cpu_percent": 50}
    plan = replace(controlled.plan(["/bin/true"]), resources=Resources(**resources))
    await controlled.job(plan, sink).run()
    with pytest.raises(StartFailed):
        await controlled.job(replace(plan, argv=("/no/such/program",)), sink).run()
    roots = cgroups(controlled.containment.root_name)
    left = {str(path) for root in roots for path in root.iterdir() if path.is_dir()}
    assert left - set(controlled.containment.ready.paths) == set()


@pytest.mark.parametrize(
    ("resources", "text"),
    [
        (
            {"memory_bytes": 64 * MEBIBYTE},
            "memory cannot be limited on this worker: controller ",
        ),
        ({"cpu_percent": 50}, "CPU time cannot be limited on this worker: controller cpu "),
        ({"processes": 5}, "the number of processes cannot be limited .*: controller pids "),
    ],
)
@pytest.mark.parametrize("containment", ["subreaper"], indirect=True)
async def test_a_subreaper_refuses_every_limit(runner, sink, resources, text):
    with pytest.raises(LimitUnavailable, match=text):
        await runner.job(limited(runner, "simple", **resources), sink).run()
    assert marked(runner.containment.root_name) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has cgroups of its own everywhere")
async def test_version_2_without_the_controller_refuses_naming_it(tmp_path, sink):
    """As on a machine of version 2 alone, where nothing was delegated to the agent."""
    home = mounts.own_cgroups().get("cgroup2")
    if home is None or "memory" in (home / "cgroup.controllers").read_text().split():
        pytest.skip("needs a hierarchy of version 2 that does not have the memory controller")
    containment = CgroupContainment("cgroup2", "test-alone", (home,), {"cgroup2": home})
    runner = Runner(containment, tmp_path)
    try:
        with pytest.raises(LimitUnavailable) as refusal:
            await runner.job(limited(runner, "simple", memory_bytes=MEBIBYTE), sink).run()
        assert refusal.value.controller == "memory"
        assert f"is not delegated to cgroup {home}, and in no hierarchy" in str(refusal.value)
        ok = await runner.job(runner.plan(["/bin/true"]), sink).run()
        assert ok.return_code == 0
    finally:
        await containment.aclose()
    assert cgroups("test-alone") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has cgroups of its own everywhere")
def test_an_agent_alone_in_its_cgroup_makes_room_for_the_controllers(tmp_path):
    """Version 2 gives controllers to no children beside processes, so that the agent moves."""
    own = mounts.own_cgroups().get("cgroup2")
    if own is None or not (controllers := (own / "cgroup.controllers").read_text().split()):
        pytest.skip("needs a controller in version 2's hierarchy")
    enabled = (own / "cgroup.subtree_control").read_text().split()
    added = [name for name in controllers if name not in enabled]
    home = own / f"hostler-test-{os.getpid()}"
    home.mkdir()
    try:
        for name in added:
            limits.write(str(own / "cgroup.subtree_control"), f"+{name}")
        program = [sys.executable, str(Path(__file__).with_name("delegated.py")), str(home)]
        told = subprocess.run(program, stdout=subprocess.PIPE, check=True, text=True)
    finally:
        for path, _directories, _files in os.walk(home, topdown=False):
            Path(path).rmdir()
        for name in added:
            limits.write(str(own / "cgroup.subtree_control"), f"-{name}")
    assert told.stdout == "agent True\nhome True\ndelegated True\njob True True\n"


# --- what is written, where this machine has no such controllers ---------------------------------


def version_2(tmp_path: Path, *files: str) -> Path:
    """A directory that looks like a job's cgroup."""
    job = tmp_path / "own" / "hostler" / "worker" / "c1"
    job.mkdir(parents=True)
    for file in files:
        (job / file).touch()
    return job


def test_version_2_gets_its_limits_in_the_jobs_own_cgroup(tmp_path):
    job = version_2(tmp_path, "memory.max", "memory.swap.max", "cpu.max", "pids.max")
    resources = Resources(100 * MEBIBYTE, 7, 50)
    cgroups = Limiter(tmp_path / "own", {}).cgroups(resources, str(job))
    assert {(cgroup.path, cgroup.version, cgroup.home) for cgroup in cgroups} == {
        (str(job), 2, None)
    }
    limits.impose(cgroups, resources)
    assert (job / "memory.max").read_text() == str(100 * MEBIBYTE)
    assert (job / "memory.swap.max").read_text() == "0"
    assert (job / "cpu.max").read_text() == f"{50_000 * (os.cpu_count() or 1)} 100000"
    # While the spawner is inside.
    assert (job / "pids.max").read_text() == "7"


def test_version_2_without_swap_is_limited_all_the_same(tmp_path):
    job = version_2(tmp_path, "memory.max")
    cgroups = Limiter(tmp_path / "own", {}).cgroups(Resources(MEBIBYTE), str(job))
    limits.impose(cgroups, Resources(MEBIBYTE))
    assert [path.name for path in job.iterdir()] == ["memory.max"]


def test_a_controller_in_version_1_is_taken_where_version_2_lacks_it(tmp_path):
    job = version_2(tmp_path, "cpu.max")
    elsewhere = Hierarchy(tmp_path / "memory", tmp_path / "memory" / "hostler" / "worker")
    limiter = Limiter(tmp_path / "own", {"memory": elsewhere})
    cpu, memory = limiter.cgroups(Resources(MEBIBYTE, cpu_percent=1), str(job))
    assert (cpu.controller, cpu.path) == ("cpu", str(job))
    assert (memory.version, memory.path) == (1, str(elsewhere.root / "c1"))
    assert memory.home == str(elsewhere.home)


@pytest.mark.parametrize("version", [1, 2])
def test_the_account_of_memory_is_read_from_either_version(tmp_path, version):
    peak = {1: "memory.max_usage_in_bytes", 2: "memory.peak"}[version]
    (tmp_path / peak).write_text("4096\n")
    text = {
        1: "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        2: "low 0\nhigh 0\nmax 17\noom 2\noom_kill 2\noom_group_kill 0\n",
    }[version]
    (tmp_path / {1: "memory.oom_control", 2: "memory.events"}[version]).write_text(text)
    assert limits.memory_usage(str(tmp_path), version) == Usage(4096, oom_kills=2)
    assert limits.memory_usage(str(tmp_path / "none"), version) == Usage()
