"""The users for builds: each is one agent's at a time, and nobody else's."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostler_agent.errors import ConfigurationError
from hostler_agent.jobs.errors import NoUserFree, UsersUnavailable
from hostler_agent.jobs.posix import libc, procfs, users
from hostler_agent.jobs.posix.users import UserPool

UIDS = (61076, 61079)
HOLDER = """
import sys
from hostler_agent.jobs.posix.users import UserPool
print(UserPool((61076, 61079), ()).acquire().uid, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def pool_of(uids: tuple[int, int] = UIDS, *groups: str) -> Iterator[UserPool]:
    try:
        made = UserPool(uids, groups)
    except UsersUnavailable as error:
        pytest.skip(f"needs root: {error}")
    yield made
    made.close()


def test_two_agents_never_have_one_user_at_once() -> None:
    with pool_of() as one, pool_of() as other:
        first, second = one.acquire(), other.acquire()
        assert (first.name, second.name) == ("hostler-b0", "hostler-b1")
        one.acquire()
        other.acquire()
        with pytest.raises(NoUserFree, match="hostler-b0 to hostler-b3 2 are in use here"):
            one.acquire()
        other.release(second)
        assert one.acquire() == second


def test_an_agent_that_is_killed_holds_no_user() -> None:
    with (
        pool_of() as pool,
        subprocess.Popen(
            [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder,
    ):
        assert holder.stdout is not None
        taken = int(holder.stdout.readline())
        assert pool.acquire().uid != taken
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert pool.acquire().uid == taken


def test_a_user_of_whom_a_process_runs_is_passed_over_and_the_process_lives() -> None:
    """It may be anybody's, as a container's: its uids are the machine's."""
    with pool_of() as pool, subprocess.Popen(["sleep", "600"], user=UIDS[0]) as stranger:
        try:
            assert procfs.processes_of(UIDS[0]) == {stranger.pid}
            assert pool.acquire().uid == UIDS[0] + 1
            assert stranger.poll() is None
        finally:
            stranger.kill()
    assert procfs.processes_of(UIDS[0]) == set()


def entry(name: str, uid: int) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, 4711, "", f"/home/{name}", "/bin/sh"))


def test_ids_that_somebody_has_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    group = grp.struct_group(("staff", "x", UIDS[0] + 1, []))

    def getpwuid(uid: int) -> pwd.struct_passwd:
        if uid == UIDS[0]:
            return entry("somebody", uid)
        raise KeyError(uid)

    def getgrgid(gid: int) -> grp.struct_group:
        if gid == group.gr_gid:
            return group
        raise KeyError(gid)

    monkeypatch.setattr(pwd, "getpwuid", getpwuid)
    monkeypatch.setattr(grp, "getgrgid", getgrgid)
    with pool_of() as pool:
        assert pool.acquire().uid == UIDS[0] + 2


@pytest.mark.parametrize(("uid", "is_used"), [(4712, True), (0, False)])
def test_an_entry_of_the_name_is_used_unless_it_is_root_s(
    monkeypatch: pytest.MonkeyPatch, uid: int, is_used: bool
) -> None:
    def getpwnam(name: str) -> pwd.struct_passwd:
        if name == "hostler-b0":
            return entry(name, uid)
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", getpwnam)
    with pool_of() as pool:
        user = pool.acquire()
        if is_used:
            assert (user.name, user.uid, user.gid) == ("hostler-b0", 4712, 4711)
        else:
            assert (user.name, user.uid) == ("hostler-b1", UIDS[0] + 1)


def test_groups_are_named_and_must_be_there() -> None:
    name = grp.getgrall()[-1].gr_name
    with pool_of(UIDS, name) as pool:
        assert pool.acquire().groups == (grp.getgrnam(name).gr_gid,)
    with pytest.raises(ConfigurationError, match="'build_groups': there is no group 'nobodys'"):
        UserPool(UIDS, ("nobodys",))


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pool_of():
        pass
    capabilities = libc.effective_capabilities() & ~(1 << libc.CAP_SETUID | 1 << libc.CAP_CHOWN)
    with monkeypatch.context() as patched:
        patched.setattr(libc, "effective_capabilities", lambda: capabilities)
        with pytest.raises(UsersUnavailable, match="lacks CAP_CHOWN, CAP_SETUID"):
            UserPool(UIDS, ())
    with monkeypatch.context() as patched:
        (tmp_path / "uid_map").write_text("0 100000 60000\n")
        patched.setattr(users, "UID_MAP", tmp_path / "uid_map")
        with pytest.raises(UsersUnavailable, match="has no uids 61076 to 61079"):
            UserPool(UIDS, ())
    with monkeypatch.context() as patched:
        patched.setattr(users, "LOCKS", tmp_path)
        tmp_path.chmod(0o755)
        with pytest.raises(UsersUnavailable, match="is not root's alone"):
            UserPool(UIDS, ())
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UsersUnavailable, match="the agent is not root"):
        UserPool(UIDS, ())
