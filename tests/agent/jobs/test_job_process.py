"""V20: how a forked process becomes a job: its user, its view of the files, and nothing more."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from jobkit import CHILD, RecordingSink, Runner, marked

from hostler_agent.jobs.errors import StartFailed
from hostler_agent.jobs.plan import Bind, BuildUser, JobPlan, View

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start jobs as another user"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv, of util-linux"),
]

USER = BuildUser("hostler-b7", 64207, 64208, (64209, 64210), "/nonexistent")
EVERYTHING = View(private_tmp=True, hide_proc=True, cgroup_read_only=True)


def shell(runner: Runner, script: str, **fields: object) -> JobPlan:
    plan = replace(runner.plan(["/bin/sh", "-c", script]), workdir="/")
    return replace(plan, **{"user": USER, **fields})  # type: ignore[arg-type]


async def output(runner: Runner, script: str, **fields: object) -> str:
    sink = RecordingSink()
    outcome = await runner.job(shell(runner, script, **fields), sink).run()
    text = sink.text() + sink.text("stderr")
    assert (outcome.return_code, outcome.receipt.missing) == (0, ()), text
    return text


def can_mount() -> bool:
    return shutil.which("unshare") is not None and os.system("unshare -m true 2>/dev/null") == 0


mounting = pytest.mark.skipif(not can_mount(), reason="needs CAP_SYS_ADMIN, for mount namespaces")


async def test_v20_a_job_is_its_user_and_has_no_capability(runner):
    text = await output(
        runner, "grep -E '^(Uid|Gid|Groups|Cap(Inh|Prm|Eff|Amb)):' /proc/self/status"
    )
    fields = {name: value.split() for name, value in (x.split(":", 1) for x in text.splitlines())}
    assert fields["Uid"] == ["64207"] * 4
    assert fields["Gid"] == ["64208"] * 4
    assert fields["Groups"] == ["64209", "64210"]
    assert [int(fields[f"Cap{kind}"][0], 16) for kind in ("Inh", "Prm", "Eff", "Amb")] == [0] * 4


async def test_v20_a_job_can_signal_neither_spawner_nor_agent(runner):
    script = f"exec 2>/dev/null; kill -0 $PPID || kill -0 {os.getpid()} || echo no"
    assert (await output(runner, script)) == "no\n"


async def test_e21_a_job_of_another_user_cannot_leave_its_cgroup(runner):
    script = (
        "for f in /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs; do echo $$ >$f; done"
    )
    sink = RecordingSink()
    await runner.job(shell(runner, f"({script}) 2>/dev/null; cat /proc/self/cgroup"), sink).run()
    inside = f"/hostler/{runner.containment.root_name}/" in sink.text()
    assert inside == (runner.containment.name != "subreaper")


@pytest.mark.parametrize("pty", [False, True], ids=["pipes", "a terminal"])
async def test_a_job_of_another_user_opens_its_streams_by_name(runner, sink, pty):
    plan = shell(runner, "echo out >/dev/stdout; echo err >/dev/stderr", use_pty=pty)
    assert (await runner.job(plan, sink).run()).return_code == 0
    assert (sink.text() + sink.text("stderr")).split() == ["out", "err"]
    assert Path(os.devnull).stat().st_uid == 0  # it was the standard input


async def test_the_working_directory_is_entered_by_the_users_own_rights(runner, sink, tmp_path):
    tmp_path.chmod(0o700)
    with pytest.raises(StartFailed, match=f"^Permission denied: {tmp_path}$"):
        await runner.job(shell(runner, "true", workdir=str(tmp_path)), sink).run()


async def test_no_new_privileges_is_an_option(runner):
    script = "grep NoNewPrivs /proc/self/status"
    assert (await output(runner, script, no_new_privileges=True)).split()[-1] == "1"
    assert (await output(runner, script)).split()[-1] == "0"


async def test_v20_root_is_no_user_for_builds(runner, sink):
    plan = shell(runner, "echo ran", user=replace(USER, uid=0))
    with pytest.raises(StartFailed, match=r"^becoming user hostler-b7: Operation not permitted$"):
        await runner.job(plan, sink).run()
    assert sink.text() == ""


# --- its view of the files ----------------------------------------------------------------------


@mounting
async def test_v20_a_jobs_temporary_files_are_its_own(runner, tmp_path):
    mine = Path("/tmp") / f"hostler-test-{os.getpid()}"
    mine.touch()
    try:
        script = f"test ! -e {mine} && touch /tmp/job /var/tmp/job && ls /tmp"
        assert await output(runner, script, view=View(private_tmp=True)) == "job\n"
        assert mine.exists()
    finally:
        mine.unlink()
    assert not Path("/tmp/job").exists()


@mounting
async def test_what_lasts_is_bound_over_the_private_directories(runner, tmp_path):
    """Also from below them: a workspace may be there."""
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and not parent.stat().st_mode & 1:
            parent.chmod(0o711)
    workspace = Bind(str(tmp_path), str(tmp_path), read_only=False)
    view = View(private_tmp=True, binds=(workspace,))
    await output(runner, "echo kept >file", view=view, workdir=str(tmp_path))
    assert (tmp_path / "file").read_text() == "kept\n"


@mounting
async def test_v20_entries_of_its_own_are_bound_over_the_machines(runner, tmp_path):
    passwd = tmp_path / "passwd"
    passwd.write_text("hostler-b7:x:64207:64208::/nonexistent:/bin/sh\n")
    view = View(binds=(Bind(str(passwd), "/etc/passwd", read_only=True),))
    mounts = "grep ' /etc/passwd ' /proc/self/mountinfo"
    script = f"id -un; cat /etc/passwd; touch /etc/passwd 2>/dev/null || {mounts}"
    name, entry, mount = (await output(runner, script, view=view)).splitlines()
    assert name == "hostler-b7"
    assert entry == passwd.read_text().rstrip()
    assert "ro" in mount.split()[5].split(",")
    assert "hostler-b7" not in Path("/etc/passwd").read_text()


@mounting
async def test_v20_a_job_sees_no_process_of_the_agents(runner):
    script = (
        f"test ! -e /proc/{os.getpid()} && test ! -e /proc/$PPID && test -e /proc/$$ && echo blind"
    )
    assert await output(runner, script, view=View(hide_proc=True)) == "blind\n"
    assert Path(f"/proc/{os.getpid()}").exists()


@mounting
async def test_e21_a_jobs_cgroups_can_be_read_only(runner, sink):
    if runner.containment.name == "subreaper":
        pytest.skip("there may be no cgroup where a subreaper is used")
    plan = shell(runner, CHILD_LEAVES, user=None, view=View(cgroup_read_only=True))
    outcome = await runner.job(plan, sink).run()
    assert (outcome.receipt.escaped, outcome.receipt.missing) == ((), ())
    assert f"/hostler/{runner.containment.root_name}/" in sink.text()
    assert "Read-only file system" in sink.text("stderr")


CHILD_LEAVES = "for f in /sys/fs/cgroup/*/cgroup.procs; do echo $$ >$f; done; cat /proc/self/cgroup"


@mounting
async def test_a_bind_of_nothing_starts_nothing(runner, sink):
    view = View(binds=(Bind("/no/such/file", "/etc/passwd", read_only=True),))
    with pytest.raises(
        StartFailed, match=r"^making its view of the files \(/no/such/file\): No such file"
    ):
        await runner.job(shell(runner, "echo ran", view=view), sink).run()
    assert sink.text() == ""


# --- where the agent's rights end ---------------------------------------------------------------

AGENT = """
import asyncio, json, os, sys
sys.path.insert(0, {tests!r})
from dataclasses import replace
from jobkit import RecordingSink, Runner
from hostler_agent.jobs import choose_containment
from hostler_agent.jobs.errors import StartFailed
from hostler_agent.jobs.plan import BuildUser, View
from pathlib import Path

async def main():
    containment = choose_containment("subreaper", {root!r})
    runner, sink = Runner(containment, Path("/")), RecordingSink()
    plan = replace(
        runner.plan(["/bin/grep", "-E", "^(Cap(Inh|Prm|Eff|Amb)|Uid):", "/proc/self/status"]),
        user=BuildUser("hostler-b7", 64207, 64208, (), "/nonexistent"),
        view={view},
    )
    try:
        outcome = await runner.job(plan, sink).run()
        print(json.dumps([sink.text(), outcome.receipt.missing]))
    except StartFailed as error:
        print(json.dumps([sink.text(), str(error)]))
    await containment.aclose()

asyncio.run(main())
"""


async def agent_with(*rights: str, view: str = "View()") -> tuple[str, object]:
    """Lets an agent of those rights start a job; what the job said, and what the agent."""
    source = AGENT.format(tests=str(CHILD.parent), root="test-rights", view=view)
    agent = await asyncio.create_subprocess_exec(
        *("setpriv", *rights, sys.executable, "-c", source), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(agent.communicate(), 60)
    assert marked("test-rights") == []
    said, told = json.loads(out)
    return said, told


@pytest.mark.parametrize("right", ["setuid", "setgid"])
async def test_v20_who_may_not_change_user_starts_nothing(right):
    said, told = await agent_with(f"--bounding-set=-{right}")
    assert (said, told) == ("", "becoming user hostler-b7: Operation not permitted")


async def test_where_no_namespace_can_be_had_the_job_runs_and_the_receipt_tells():
    view = "View(private_tmp=True, hide_proc=True, cgroup_read_only=True)"
    said, told = await agent_with("--bounding-set=-sys_admin", view=view)
    assert "Uid:\t64207" in said
    refused = "Operation not permitted"
    parts = ("private_tmp", "hide_proc", "cgroup_read_only")
    assert told == [f"{part}: {refused}" for part in parts]


async def test_v20_capabilities_by_the_agents_unit_are_not_the_jobs():
    """An agent that is no root may have some; a change of user alone does not take them."""
    own = "+setuid,+setgid,+kill,+dac_read_search"
    said, told = await agent_with(
        *("--reuid=64206", "--regid=64206", "--clear-groups"),
        *(f"--inh-caps={own}", f"--ambient-caps={own}"),
    )
    assert told == []
    capabilities = [line.split()[1] for line in said.splitlines() if line.startswith("Cap")]
    assert [int(each, 16) for each in capabilities] == [0] * 4
