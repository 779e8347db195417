"""Processes that are stopped, as by SIGSTOP: they hold what they have, and answer nobody."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

_PATIENCE_S = 20.0


def stop(pid: int) -> None:
    """Stop the whole process.

    The signal alone is not enough to go by: until the kernel has told each of its threads, they
    may answer one question more.
    """
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + _PATIENCE_S
    while not all(_is_stopped(thread) for thread in Path(f"/proc/{pid}/task").iterdir()):
        if time.monotonic() > end:
            raise TimeoutError(f"process {pid} does not stop")
        time.sleep(0.001)


def resume(pid: int) -> None:
    """Let it go on where it was."""
    os.kill(pid, signal.SIGCONT)


def _is_stopped(thread: Path) -> bool:
    try:
        state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return True
    return state in "TtZ"
