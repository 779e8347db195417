"""E21: who leaves the cgroup of its job does not leave the job.

A job can write to cgroups where it runs as root, or as the user to whom a subtree was delegated.
There it cannot be held back: it is found by its descent from the spawner.
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
from jobkit import CHILD, RecordingSink, living, marked

from hostler_agent.jobs.posix import mounts
from hostler_agent.jobs.receipt import Ended

HIDING = [(), ("bare",), ("bare", "unmarked")]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make and leave cgroups")


@pytest.fixture
def in_cgroup(runner):
    if runner.containment.name == "subreaper":
        pytest.skip("where there is no cgroup, none can be left")
    return runner


@pytest.mark.parametrize("how", HIDING, ids=" ".join)
async def test_e21_who_leaves_the_cgroup_is_killed_and_named(in_cgroup, sink, how):
    outcome = await in_cgroup.job(in_cgroup.child("leave", "all", *how), sink).run()
    (pid,) = sink.pids
    assert living([pid]) == []
    assert [one.pid for one in outcome.receipt.escaped] == [pid]
    assert (outcome.receipt.ended, outcome.return_code) == (Ended.EXITED, 0)
    assert outcome.receipt.survivors == ()
    assert outcome.receipt.pids_seen == 2


async def test_e21_a_main_process_outside_its_cgroup_is_ended_like_any(in_cgroup, sink):
    job = in_cgroup.job(in_cgroup.child("leave", "all", "linger"), sink)
    running = asyncio.ensure_future(job.run())
    await sink.until("Ready")
    job.interrupt(Ended.KILLED, "enough")
    outcome = await asyncio.wait_for(running, 60)
    assert len(outcome.receipt.escaped) == 2
    assert living(sink.pids) == []


async def test_e21_who_moves_into_a_neighbours_cgroup_is_its_own_jobs_still(in_cgroup, sink):
    """And the neighbour, who left nobody, is not blamed."""
    other_sink = RecordingSink()
    other = in_cgroup.job(in_cgroup.child("process_group"), other_sink)
    neighbour = asyncio.ensure_future(other.run())
    await other_sink.until("pid")
    root = in_cgroup.containment.roots[0]
    (cgroup,) = [path for path in root.iterdir() if str(other_sink.pids[0]) in _pids(path)]
    plan = in_cgroup.child("leave", str(cgroup / "cgroup.procs"), "bare")
    outcome = await in_cgroup.job(plan, sink).run()
    assert [one.pid for one in outcome.receipt.escaped] == sink.pids
    assert living(sink.pids) == []
    assert living(other_sink.pids) == other_sink.pids
    other.interrupt(Ended.KILLED, "enough")
    assert (await neighbour).receipt.escaped == ()
    assert living(other_sink.pids) == []


def _pids(cgroup: Path) -> list[str]:
    procs = cgroup / "cgroup.procs"
    return procs.read_text().split() if procs.exists() else []


async def test_e21_nobody_is_blamed_who_ended_in_the_cgroup(in_cgroup):
    async def lane() -> list[int]:
        blamed = []
        for _ in range(8):
            plan = in_cgroup.child("escape", "setsid", "quiet", "bare")
            receipt = (await in_cgroup.job(plan, RecordingSink()).run()).receipt
            blamed += [one.pid for one in receipt.escaped]
        return blamed

    assert await asyncio.gather(*(lane() for _ in range(4))) == [[]] * 4


@pytest.mark.parametrize("containment", ["cgroup2", "cgroup1"], indirect=True)
async def test_e21_what_fled_from_a_killed_spawner_is_found(in_cgroup, sink):
    """Both ways at once: its orphans are init's now, and not in their cgroup."""
    job = in_cgroup.job(in_cgroup.child("leave", "all", "linger"), sink)
    running = asyncio.ensure_future(job.run())
    await sink.until("Ready")
    os.kill(in_cgroup.containment.spawner.pid, signal.SIGKILL)
    outcome = await asyncio.wait_for(running, 60)
    assert outcome.receipt.ended is Ended.LOST
    assert set(sink.pids) <= {one.pid for one in outcome.receipt.escaped}
    assert living(sink.pids) == []


DELEGATED = """
import asyncio, json, os, sys
sys.path.insert(0, {tests!r})
from jobkit import RecordingSink, Runner
from hostler_agent.jobs.posix.cgroup import CgroupContainment
from pathlib import Path

async def main():
    home = Path({home!r})
    containment = CgroupContainment("cgroup2", {root!r}, (home,), {{"cgroup2": home}})
    runner, sink = Runner(containment, Path("/")), RecordingSink()
    plan = runner.child("leave", str(home / "cgroup.procs"), "bare", "unmarked")
    receipt = (await runner.job(plan, sink).run()).receipt
    await containment.aclose()
    print(json.dumps([os.getuid(), sink.pids, [one.pid for one in receipt.escaped]]), flush=True)

asyncio.run(main())
"""


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv: apt install util-linux")
async def test_e21_in_a_subtree_delegated_to_an_ordinary_user_too():
    """As below systemd's Delegate=yes with User=."""
    own = mounts.own_cgroups().get("cgroup2")
    if own is None:
        pytest.skip("needs a hierarchy of version 2")
    nobody = pwd.getpwnam("nobody")
    home = own / f"hostler-test-{os.getpid()}"
    home.mkdir()
    try:
        for path in (home, home / "cgroup.procs", home / "cgroup.subtree_control"):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        source = DELEGATED.format(tests=str(CHILD.parent), home=str(home), root="delegated")
        agent = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", f'echo 0 >{home}/cgroup.procs; exec "$@"', "sh"),
            *("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"),
            # The checkout and its Python may be below a directory of root's.
            *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
            *(sys.executable, "-c", source),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(agent.communicate(), 60)
        uid, told, escaped = json.loads(out)
        assert (uid, escaped) == (nobody.pw_uid, told)
        assert len(told) == 1
        assert living(told) == []
    finally:
        for path, _directories, _files in os.walk(home, topdown=False):
            Path(path).rmdir()
    assert marked("delegated") == []
