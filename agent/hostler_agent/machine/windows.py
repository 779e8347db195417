"""The machine, where it is Windows."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Callable, Optional

import psutil


def name() -> tuple[str, str]:
    """(host name, processor architecture)"""
    return os.environ.get("COMPUTERNAME", ""), os.environ.get("PROCESSOR_ARCHITECTURE", "")


def cpu_count() -> int:
    """How many CPUs this process may use; at least 1."""
    return os.cpu_count() or 1


def memory_mb() -> Optional[int]:
    """The machine's memory in MiB."""
    return int(psutil.virtual_memory().total // 2**20)


def boot_id() -> Optional[str]:
    """Another one after each restart. Windows has no such id: it is the time of the boot, in
    minutes, because the reported second wanders by one.
    """
    return f"boot-{round(psutil.boot_time() / 60)}"


def guard_against_oom() -> None:
    """Windows fails allocations and kills nobody."""


def is_private(path: Path) -> bool:
    """Access lists come from the directory, which the installer makes; the mode tells nothing."""
    return path.exists()


def stop_signals() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(ask to finish, demand to end at once)"""
    return (signal.SIGTERM, signal.SIGINT), ()


def on_signal(loop: asyncio.AbstractEventLoop, number: int, react: Callable[[], None]) -> None:
    """Call `react` in the event loop whenever the signal comes."""
    # Windows' event loops have no add_signal_handler.
    signal.signal(number, lambda *_: loop.call_soon_threadsafe(react))
