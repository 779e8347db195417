"""What the spawner does when its agent is gone: it kills all jobs, and removes their cgroups."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

assert sys.platform != "win32"


def descendants(root: int) -> list[int]:
    """All processes below `root`, from one scan of /proc."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib is not loaded here
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stat:
                    parent = int(stat.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def kill_everything(deadline_s: float) -> None:
    """Kill and reap all descendants. Gives up after `deadline_s` on those that cannot die.

    They are stopped before they are killed, so that none can fork meanwhile.
    """
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        for number in (signal.SIGSTOP, signal.SIGKILL):
            signal_descendants(number)
        try:
            while os.wait4(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


def signal_descendants(number: int) -> None:
    """Signal all descendants. A pid is opened first and then looked for again, so that a reused one
    is never hit (E6).
    """
    opened: dict[int, int] = {}
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            opened[pid] = os.pidfd_open(pid)
    still = set(descendants(os.getpid()))
    for pid, descriptor in opened.items():
        if pid in still:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(descriptor, number)
        os.close(descriptor)


def remove_cgroups(roots: list[str]) -> None:
    """Remove those cgroups that are empty; the kernel refuses the others."""
    for root in roots:
        for path, _directories, _files in os.walk(root, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(path)  # noqa: PTH106 - pathlib is not loaded here
