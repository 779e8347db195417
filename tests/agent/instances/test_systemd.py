"""Which manager is asked for a unit, and with what; the manager itself is a stand-in here."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from hostler_agent.instances.posix import systemd

RECORDER = """#!/bin/sh
printf '%s\\n' "$(basename "$0")" "$@" >>{said}
case "$(basename "$0")" in systemctl) echo MainPID=4711;; esac
exit {status}
"""


@pytest.fixture
def launch(tmp_path: Path) -> systemd.Launch:
    return systemd.Launch(
        "hostler-x", ["python3", "agent", "run"], tmp_path, tmp_path / "agent.log", {"A": "b c"}
    )


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that note how they were called; systemd seems to run."""
    said, programs = tmp_path / "said", tmp_path / "bin"
    programs.mkdir()
    for name in ("systemd-run", "systemctl"):
        (programs / name).write_text(RECORDER.format(said=said, status=0))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(systemd, "RUNNING", tmp_path)
    monkeypatch.setattr(systemd, "LINGER", tmp_path / "linger")
    monkeypatch.setattr(systemd, "RUN_USER", tmp_path / "run")
    return said


def as_user(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)


def test_root_asks_the_system_s_manager(
    manager: Path, launch: systemd.Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_user(monkeypatch, 0)
    assert systemd.start(launch) == 4711
    said = manager.read_text().splitlines()
    assert said[:4] == ["systemd-run", "--system", "--quiet", "--unit=hostler-x"]
    assert {"Delegate=yes", "KillMode=mixed", f"StandardError=append:{launch.log}"} <= set(said)
    assert said[said.index("-E") + 1] == "A=b c"
    assert said[said.index("--") : said.index("systemctl")] == ["--", "python3", "agent", "run"]


@pytest.mark.parametrize("lingers", [True, False])
def test_a_user_s_manager_is_asked_only_if_it_stays_after_the_login(
    manager: Path,
    launch: systemd.Launch,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    lingers: bool,
) -> None:
    user = pwd.getpwnam("nobody")
    as_user(monkeypatch, user.pw_uid)
    (tmp_path / "run" / str(user.pw_uid) / "systemd" / "private").mkdir(parents=True)
    (tmp_path / "linger").mkdir()
    if lingers:
        (tmp_path / "linger" / user.pw_name).touch()
    assert systemd.start(launch) == (4711 if lingers else None)
    assert manager.exists() == lingers


def test_where_there_is_no_systemd_nobody_is_asked(
    manager: Path, launch: systemd.Launch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(systemd, "RUNNING", tmp_path / "absent")
    assert systemd.start(launch) is None
    assert not manager.exists()


def test_a_manager_that_refuses_leaves_it_to_a_session_of_its_own(
    manager: Path, launch: systemd.Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Path(os.environ["PATH"].split(":")[0]) / "systemd-run"
    program.write_text(RECORDER.format(said=manager, status=1))
    as_user(monkeypatch, 0)
    assert systemd.start(launch) is None
