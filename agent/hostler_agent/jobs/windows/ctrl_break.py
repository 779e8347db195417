"""Asks the programs on a job's console to end, with CTRL_BREAK, Windows' nearest equivalent of
SIGTERM.

Only a process on the same console may send it, and a process has one console: the agent would have
to leave its own. So a short program does it: it attaches to the job's console, sends the event to
all processes on it, and ends. This module is that program; its argument is the pid, and it needs
only ctypes.
"""

from __future__ import annotations

import asyncio
import contextlib
import pkgutil
import subprocess
import sys

DEADLINE_S = 5.0
_CTRL_C, _CTRL_BREAK = 0, 1


async def ask_to_end(pid: int) -> None:
    """Send the event. Returns when it was sent, or cannot be. The caller must hold the process's
    handle open, so that the pid is not reused.
    """
    source = pkgutil.get_data(__package__ or "", "ctrl_break.py")
    assert source is not None
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        await loop.run_in_executor(None, _run, source, pid)


def _run(source: bytes, pid: int) -> None:
    # Through a pipe, so that it also works from inside agent.pyz.
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            [sys.executable, "-I", "-S", "-", str(pid)],
            input=source,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=DEADLINE_S,
            creationflags=getattr(subprocess, "DETACHED_PROCESS", 0),
            check=False,
        )


def main(pid: int) -> None:
    import ctypes  # noqa: PLC0415 - the agent loads this module without them
    import signal  # noqa: PLC0415

    windll = getattr(ctypes, "WinDLL")("kernel32")  # noqa: B009 - only Windows has it
    # They reach us as well. Ignored by C's runtime: a handler in Python might be called when Python
    # is gone already.
    for name in ("SIGINT", "SIGBREAK"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    # One console at a time: ours, if we have one, is the agent's.
    windll.FreeConsole()
    # CTRL_C, which some programs ignore, where CTRL_BREAK cannot be sent (Wine 8). Both to all.
    if windll.AttachConsole(pid) and not windll.GenerateConsoleCtrlEvent(_CTRL_BREAK, 0):
        windll.GenerateConsoleCtrlEvent(_CTRL_C, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
