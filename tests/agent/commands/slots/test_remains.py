"""What a user can leave on a machine, and that it is removed, and nobody else's (V10)."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from slotkit import run_in

from hostler_agent.commands.slots import keyrings, remains
from hostler_agent.commands.slots.posix import UserSlot
from hostler_agent.jobs.plan import BuildUser
from hostler_agent.jobs.posix.users import UserPool

ADD_KEY = """
import ctypes, platform
number = {"x86_64": 248, "aarch64": 217}[platform.machine()]
print(ctypes.CDLL(None).syscall(number, b"user", b"planted", b"secret", 6, -4))
"""


@pytest.fixture
def user(pool: UserPool) -> Iterator[BuildUser]:
    taken = pool.acquire()
    yield taken
    pool.release(taken)


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(remains, "SPOOLS", (str(tmp_path), str(tmp_path / "nowhere")))
    monkeypatch.setattr(remains, "PUBLIC", ())
    return tmp_path


@pytest.fixture(params=["none"])
def has_namespaces() -> bool:
    """Nothing here depends on them."""
    return False


def test_jobs_of_cron_and_at_go_by_name_and_by_owner(user: BuildUser, spool: Path) -> None:
    for name in (user.name, "root", "a0001", str(user.uid)):
        (spool / name).write_text("* * * * * true\n")
    os.chown(spool / "a0001", user.uid, -1)
    assert remains.clear(user) == []
    assert [path.name for path in spool.iterdir()] == ["root"]


def test_what_cannot_be_removed_is_named(
    user: BuildUser, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (spool / user.name).write_text("")

    def refuse(_directory: int, _name: str, path: str, _progress: object) -> list[OSError]:
        return [OSError(30, "Read-only file system", path)]

    monkeypatch.setattr(remains, "remove_entry", refuse)
    assert remains.clear(user) == [f"{spool}/{user.name}: Read-only file system"]


def test_an_entry_that_belongs_to_another_stays_though_all_may_write(
    user: BuildUser, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = spool / "public"
    closed = public / "closed"
    closed.mkdir(parents=True)
    for path in (public / "of-another", closed / "of-the-user"):
        path.write_text("")
    os.chown(closed / "of-the-user", user.uid, -1)
    monkeypatch.setattr(remains, "PUBLIC", (str(public),))
    assert remains.clear(user) == []
    assert {path.name for path in public.iterdir()} == {"of-another", "closed"}
    assert (closed / "of-the-user").exists()  # nobody but its owner could have put it there


def test_the_keys_of_a_user_go(slot: UserSlot) -> None:
    if int(run_in(slot, f"/usr/bin/python3 -c '{ADD_KEY}'").split()[-1]) < 0:
        pytest.skip("needs keyrings that a user may add to")
    assert keyrings.has_keys(slot.user.uid)
    assert remains.clear(slot.user) == []
    deadline = time.monotonic() + 30  # the kernel forgets what was cleared a moment later
    while "planted" in run_in(slot, "cat /proc/keys"):
        assert time.monotonic() < deadline
