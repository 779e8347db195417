"""Slots: a user and a view for each lease, and nothing of it left at its end (V10, V20)."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parent.parent))

from commandkit import RecordingContext
from slotkit import run_in, start_in

from hostler_agent.commands import COMMANDS
from hostler_agent.commands.errors import CommandError
from hostler_agent.commands.slots import AgentSlots, make_slots, remains, sysv
from hostler_agent.commands.slots.posix import UserSlot, UserSlots
from hostler_agent.config import Config
from hostler_agent.jobs.errors import NoUserFree
from hostler_agent.jobs.posix import procfs
from hostler_agent.jobs.posix.users import UserPool
from hostler_agent.wire.extension import CommandTerms

WHO = """
id -un; id -u; echo "$HOME $USER $LOGNAME"; cd; pwd; ls -la | wc -l; touch ~/x && echo made
"""


@pytest.fixture
def public(open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one directory for temporary files, but for those that a slot's view has instead."""
    made = open_directory / "public"
    made.mkdir()
    made.chmod(0o1777)
    monkeypatch.setattr(remains, "PUBLIC", (str(made), "/dev/shm"))
    return made


async def test_a_job_is_somebody_with_a_home_of_its_own(
    slot: UserSlot, has_namespaces: bool
) -> None:
    name = slot.user.name if has_namespaces else ""
    lines = run_in(slot, WHO).splitlines()
    if has_namespaces:  # else the machine knows no such user
        assert lines[0] == name
    assert lines[-5:] == [
        str(slot.user.uid),
        f"{slot.user.home} {slot.user.name} {slot.user.name}",
        slot.user.home,
        "3",
        "made",
    ]


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv, of util-linux")
@pytest.mark.parametrize("has_namespaces", ["namespaces"], indirect=True)
@pytest.mark.usefixtures("has_namespaces", "pool")
def test_a_job_starts_where_the_agent_may_not_look_into_processes(base: Path) -> None:
    """As in a container. An agent of which a thread was a build's user, the spawner may not look
    into either.
    """
    program = [sys.executable, str(Path(__file__).with_name("untraced.py")), str(base)]
    ran = subprocess.run(
        ["setpriv", "--bounding-set=-sys_ptrace", *program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.startswith("hostler-b"), ran.stdout + ran.stderr


async def test_V20_two_builds_see_nothing_of_each_other(
    slots: UserSlots, has_namespaces: bool, public: Path
) -> None:
    async with slots.use("one") as one, slots.use("two") as two:
        assert isinstance(one, UserSlot)
        assert isinstance(two, UserSlot)
        running = start_in(
            one, "/bin/sh", "-c", "echo secret > ~/x; echo t > /tmp/x; exec sleep 60"
        )
        process = running.pid
        try:
            said = run_in(
                two,
                f"cat {one.user.home}/x; ls {one.user.home}; kill -9 {process} || echo not killed;"
                f"cat /proc/{process}/environ; ls /proc/{process}/fd;"
                f"ls /proc | grep -cx {process};"
                "cat /tmp/x",
            )
        finally:
            running.kill()
            running.communicate()
    assert "secret" not in said
    assert "not killed" in said
    assert "HOME=" not in said
    if has_namespaces:
        assert "\n0\n" in said  # of its neighbour's processes it sees not even their number
        assert "/tmp/x: No such file" in said


async def test_V20_the_agents_own_is_hidden(
    slot: UserSlot, base: Path, has_namespaces: bool
) -> None:
    (base.parent / "agent.json").write_text("{}")
    (base.parent / "agent.json").chmod(0o600)
    (base / ".hostler" / "session-w").write_text("secret")
    said = run_in(
        slot,
        f"cat {base.parent}/agent.json {base}/.hostler/session-w; ls {base}/.hostler;"
        f"cat /proc/{os.getpid()}/environ; cat /proc/{os.getpid()}/maps; kill -STOP {os.getpid()};"
        "touch /sys/fs/cgroup/*/x /sys/fs/cgroup/x",
    )
    refusals = (
        "Permission denied",
        "No such file",
        "not permitted",
        "No such process",
        "Read-only",
    )
    told = [line for line in said.splitlines() if not any(word in line for word in refusals)]
    assert "".join(told) == ""
    if has_namespaces:
        assert run_in(slot, f"ls -A {base.parent}").split() == [base.name]


LEAVINGS = (
    "touch {public}/file; mkdir -p {public}/d/e; touch {public}/d/e/f; ln -s / {public}/link",
    "mkdir -m 777 {public}/others 2>/dev/null; touch {public}/.hidden /dev/shm/left",
    "chmod 0 {public}/d",
)


async def test_V10_nothing_of_a_slots_user_remains_after_its_lease(
    slots: UserSlots, base: Path, public: Path, has_namespaces: bool
) -> None:
    others = public / "others"
    others.mkdir()
    others.chmod(0o1777)
    (public / "kept").write_text("")
    async with slots.use("lease") as slot:
        assert isinstance(slot, UserSlot)
        workspace = base / "builds" / "B.1"
        await slot.claim([str(workspace)])
        print(run_in(slot, f"touch {workspace}/x; mkdir -m 0 {workspace}/closed"))
        run_in(slot, "; ".join(LEAVINGS).format(public=public) + f"; touch {others}/inner")
        found = {path.name for path in public.iterdir()}
        assert has_namespaces or found == {"file", "d", "link", ".hidden", "others", "kept"}
        run_in(slot, "ipcmk -M 4096 -Q -S 1")
        assert has_namespaces or len(sysv.objects_of(slot.user.uid)) == 3
        daemon = start_in(slot, "/bin/sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo started")
        assert daemon.communicate()[0] == "started\n"
        uid = slot.user.uid
    assert procfs.processes_of(uid)
    assert await slots.end("lease", [str(workspace)]) == []
    assert procfs.processes_of(uid) == set()
    assert sorted(path.name for path in public.iterdir()) == ["kept", "others"]
    assert list(others.iterdir()) == []
    assert not Path("/dev/shm/left").exists()
    assert sysv.objects_of(uid) == []
    assert not workspace.exists()
    async with slots.use("next") as after:
        assert after.user is not None
        assert after.user.uid == uid


async def test_V10_a_user_of_whom_something_stays_is_not_used_again(
    slots: UserSlots, slot_context: RecordingContext, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with slots.use("lease") as slot:
        assert slot.user is not None
        uid = slot.user.uid
    clear = remains.clear
    stays = ["/var/spool/cron/crontabs/hostler-b0: Read-only file system"]
    monkeypatch.setattr(remains, "clear", lambda user: [*clear(user), *stays])
    slot_context.terms = CommandTerms("lease", 1)
    with pytest.raises(CommandError, match="of the build remains: /var/spool/cron/crontabs/host"):
        await COMMANDS["end_lease"](slot_context, {"paths": [str(base / "builds" / "B.1")]}).run()
    monkeypatch.setattr(remains, "clear", clear)
    async with slots.use("next") as after:
        assert after.user is not None
        assert after.user.uid != uid


async def test_a_lease_that_had_no_command_ends_too(slots: UserSlots, base: Path) -> None:
    workspace = base / "builds" / "B.1"
    workspace.mkdir()
    assert await slots.end("unknown", [str(workspace)]) == []
    assert not workspace.exists()


async def test_the_end_waits_for_the_commands_in_the_slot(slots: UserSlots) -> None:
    async with slots.use("lease") as slot:
        assert slot.user is not None
        slot_uid = slot.user.uid
        ending = asyncio.ensure_future(slots.end("lease", []))
        await asyncio.sleep(0)
        async with slots.use("next") as other:
            assert other.user is not None
            assert other.user.uid != slot_uid
        assert not ending.done()
    assert await ending == []


async def test_what_a_killed_agent_left_is_removed_before_its_users_are_used(
    slots: UserSlots, slot: UserSlot, base: Path, public: Path
) -> None:
    """A new agent has no account of it: the uid and the names of the directories tell."""
    left = slots.open()
    run_in(left, f"touch {public}/left")
    left.namespaces.close()
    slots._pool.release(left.user)
    again = slots.open()
    assert again.user == left.user
    assert list(public.iterdir()) == []
    assert slots._close(again, ()) == []


async def test_commands_at_the_same_time_open_one_slot(slots: UserSlots) -> None:
    async def user() -> str:
        async with slots.use("lease") as slot:
            assert slot.user is not None
            return slot.user.name

    assert len(set(await asyncio.gather(*(user() for _ in range(5))))) == 1


async def test_when_no_user_is_free_a_command_says_so(
    base: Path, slot_context: RecordingContext, pool: UserPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_count", 0)
    with pytest.raises(CommandError, match=r"^stat: no user is free for another build"):
        await COMMANDS["stat"](slot_context, {"path": "x"}).run()
    with pytest.raises(NoUserFree):
        pool.acquire()


def config(tmp_path: Path, **options: object) -> Config:
    return Config("ws://127.0.0.1/", "w1", "token", tmp_path / "work", **options)  # type: ignore[arg-type]


def test_the_owner_may_have_builds_run_as_the_agent(tmp_path: Path) -> None:
    slots = make_slots(config(tmp_path, run_as="agent", no_new_privileges=True))
    assert isinstance(slots, AgentSlots)
    assert not slots.have_users


def test_V20_without_the_rights_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not make_slots(config(tmp_path)).have_users
    assert "builds run as the agent's own user: the agent is not root" in caplog.text


def test_V20_where_a_build_cannot_reach_its_directory_it_says_so(
    base: Path, has_namespaces: bool, pool: UserPool, caplog: pytest.LogCaptureFixture
) -> None:
    """Never less than what is reported: a trial shows it before the first build."""
    del pool
    base.parent.chmod(0o700)
    slots = make_slots(config(base.parent, build_uids=(61072, 61075)))
    assert slots.have_users == has_namespaces
    if not has_namespaces:
        assert "everybody must be able to enter the directories above it" in caplog.text
    asyncio.run(slots.aclose())
