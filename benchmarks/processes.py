"""Processes that are measured: started, looked at through /proc, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

PROJECT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
START_S = 60.0
STOP_S = 30.0

T = TypeVar("T")


class BenchmarkFailed(Exception):
    """Something did not do what is to be measured; the text says what, with its last words."""


@contextlib.contextmanager
def running(
    argv: Sequence[str], directory: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a directory of its own; its output goes to ``output.log`` there.

    Ended by SIGTERM, and by SIGKILL with its whole session if that takes too long.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "output.log", "ab") as log:
        process = subprocess.Popen(
            argv,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it leads its session
        process.wait()


def wait_for(
    look: Callable[[], T | None], what: str, pause_s: float = 0.005, deadline_s: float = START_S
) -> T:
    """The first result that is not None; raises BenchmarkFailed when none comes in time."""
    ends_at = time.monotonic() + deadline_s
    while (found := look()) is None:
        if time.monotonic() > ends_at:
            raise BenchmarkFailed(f"{what} did not happen within {deadline_s:g} s")
        time.sleep(pause_s)
    return found


def resident_mib(pid: int) -> float:
    """VmRSS of one process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise BenchmarkFailed(f"process {pid} has no memory any more")


def tree_share_mib(pid: int) -> float:
    """Pss of a process and all below it: what they hold together, a shared page counted once."""
    children = psutil.Process(pid).children(recursive=True)
    return sum(_share_mib(each) for each in (pid, *(child.pid for child in children)))


def _share_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise BenchmarkFailed(f"process {pid} has no memory any more")


def cpu_s(pid: int) -> float:
    """Time that all threads of a process have run, to the nanosecond.

    psutil and stat count in ticks of 10 ms, which is more than an idle process uses in a while.
    """
    total_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total_ns += int((task / "schedstat").read_text().split()[0])
    return total_ns / 1e9
