"""The lock is the truth about a hub that runs; a pid is only believed together with it (E6)."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hostler_hub.errors import SettingsError
from hostler_hub.runtime import private_files, process
from hostler_hub.runtime.errors import HubRuns, HubUnresponsive
from hostler_hub.runtime.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any hub."""
    code = "print('Ready', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"Ready\n"
        yield child
        child.kill()


def test_nothing_runs_where_nothing_ran(settings: Settings) -> None:
    assert process.find_running(settings) is None
    assert process.stop(settings, timeout_s=1) is False


def test_the_lock_tells_who_runs(settings: Settings) -> None:
    with process.hold_lock(settings):
        assert process.find_running(settings) == process.Running(os.getpid(), None, None)
        run = {"url": "http://x", "pid": os.getpid(), "started_at": "now"}
        private_files.write_json(settings.run_file, run)
        assert process.find_running(settings) == process.Running(
            os.getpid(), "http://x", "now", local_url="http://x"
        )
        with pytest.raises(HubRuns), process.hold_lock(settings):
            pass
        assert process.find_running(settings) is not None
    assert process.find_running(settings) is None
    assert not settings.run_file.exists()


def test_looking_does_not_keep_a_hub_from_starting(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks holds a shared lock for an instant; a start that meets it tries again."""
    settings.lock_file.touch()
    looking = open(settings.lock_file)  # noqa: SIM115  # closed by the pause below
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr(process.time, "sleep", lambda _pause: looking.close())
    with process.hold_lock(settings):
        assert looking.closed


def test_what_a_killed_hub_left_is_not_believed(settings: Settings) -> None:
    run = {"url": "http://old", "pid": 1, "started_at": "then"}
    private_files.write_json(settings.run_file, run)
    settings.lock_file.write_text("1\n")
    assert process.find_running(settings) is None
    with process.hold_lock(settings):
        running = process.find_running(settings)
    assert running == process.Running(os.getpid(), None, None)


def test_a_stranger_with_the_pid_is_not_signalled(
    settings: Settings, stranger: subprocess.Popen[bytes]
) -> None:
    """The lock is held by us, but the file names a process that does not hold it."""
    with process.hold_lock(settings):
        settings.lock_file.write_text(f"{stranger.pid}\n")
        with pytest.raises(HubUnresponsive, match="still there after 0 s"):
            process.stop(settings, timeout_s=0.1)
    assert stranger.poll() is None


def test_a_stale_pid_in_a_free_lock_is_not_signalled(
    settings: Settings, stranger: subprocess.Popen[bytes]
) -> None:
    settings.lock_file.write_text(f"{stranger.pid}\n")
    assert process.stop(settings, timeout_s=1) is False
    assert stranger.poll() is None


def test_a_lock_file_that_cannot_be_read_is_one_line(settings: Settings) -> None:
    settings.lock_file.mkdir()
    with pytest.raises(SettingsError, match="cannot be read"):
        process.find_running(settings)


def test_announcing_tells_the_starter_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setenv(process.READY_FD, str(writer))
    process.announce("two\nlines")
    process.announce("again")  # nobody listens any more
    with os.fdopen(reader) as pipe:
        assert pipe.read() == "two lines\n"


def test_nobody_answers(settings: Settings) -> None:
    nobody = process.Running(None, None, None, local_url="http://127.0.0.1:9")
    assert process.call(nobody, "/healthz") is None
