"""The functions of `machine` on POSIX systems."""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional

if TYPE_CHECKING:
    import asyncio

assert sys.platform != "win32"

HAS_TERMINALS = True

READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""Flags to open a file for reading without waiting for the writer of a named pipe."""

CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW

PRIVACY_HINT = "run: chmod 600 FILE"

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
OOM_FILE = Path("/proc/self/oom_score_adj")
OOM_SCORE_ADJ = -900
_PR_SET_DUMPABLE = 4


def name() -> tuple[str, str]:
    """The host name and the processor's architecture."""
    uname = os.uname()
    return uname.nodename, uname.machine


def cpu_count() -> int:
    """How many CPUs this process may use; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def memory_mb() -> Optional[int]:
    """The machine's memory in MiB; None if it cannot be known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (ValueError, OSError):
        return None


def boot_id() -> Optional[str]:
    """An id that changes with each restart of the machine; None if there is none."""
    try:
        return BOOT_ID_FILE.read_text("ascii").strip() or None
    except OSError:
        return None


def os_release() -> dict[str, Optional[str]]:
    """Fields that /etc/os-release lacks."""
    return {}


def has_long_paths() -> Optional[bool]:
    """Whether paths of more than 260 characters work."""
    return True


def guard_against_oom() -> None:
    """Make the kernel's OOM killer prefer the jobs to the agent, if that is permitted. Child
    processes must be reset to the default.
    """
    with contextlib.suppress(OSError):
        OOM_FILE.write_text(str(OOM_SCORE_ADJ), "ascii")


def forbid_inspection() -> bool:
    """Forbid other processes of the agent's user to read its memory, its environment and its open
    files. Returns whether the kernel does so.

    Its files in /proc are root's from then on. Programs that it starts are not concerned.
    """
    import ctypes  # noqa: PLC0415 - an agent whose builds are other users does without it

    return bool(ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)


def power_off() -> bool:
    """Switch the machine off. Returns False if no way to do it works."""
    for argv in (["systemctl", "poweroff"], ["shutdown", "-h", "now"], ["poweroff"]):
        with contextlib.suppress(OSError):
            if subprocess.run(argv, stdin=subprocess.DEVNULL, check=False).returncode == 0:
                return True
    return False


def is_private(path: Path) -> bool:
    """Whether nobody but the owner may read or change the file."""
    return not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)


def memory_directories(*, common: bool) -> list[Path]:
    """Directories of this user that are in memory, where each is one; the preferred one first.

    `common`: also the one for everybody's files. A job of another user may have its own in that
    place.
    """
    user = os.geteuid()
    places = [Path("/run") if user == 0 else Path(f"/run/user/{user}")]
    if common:
        places.append(Path("/dev/shm"))  # noqa: S108 - the caller checks whose a file in it is
    return [place for place in places if _is_in_memory(place)]


def _is_in_memory(path: Path) -> bool:
    try:
        device = path.stat().st_dev
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    # proc(5): the device is the third field, the type the first one after the lone hyphen.
    kinds = {line.partition(" - ")[2].split()[0] for line in mounts if line.split()[2] == number}
    return bool(kinds & {"tmpfs", "ramfs"})


def is_own_directory(path: Path) -> bool:
    """Whether the path is a directory of this user, and no link to one."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def give_file(descriptor: int, uid: int, gid: int) -> None:
    """Make a user the owner of an open file. Raises OSError."""
    os.fchown(descriptor, uid, gid)


def shell() -> tuple[str, ...]:
    """The arguments that precede a command that is one string."""
    return ("/bin/sh", "-c")


def variable_name(given: str) -> str:
    """The name of an environment variable as os.environ has it."""
    return given


def output_decoder() -> codecs.IncrementalDecoder:
    """The decoder for programs' output."""
    return codecs.getincrementaldecoder("utf-8")("replace")


def open_log(path: str) -> int:
    """Open a file to read what others write, and return its descriptor. Raises OSError.

    Follows no link and does not wait for a writer, since a build chooses the path.
    """
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)


def make_fifo(path: str, mode: int) -> None:
    """Make a named pipe. Raises OSError."""
    os.mkfifo(path, mode)


def keep_owner(source: str, target: str) -> None:
    """Give a copy the owner of its source, if that is permitted."""
    owner = os.lstat(source)
    with contextlib.suppress(PermissionError):
        os.chown(target, owner.st_uid, owner.st_gid, follow_symlinks=False)


def stop_signals() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The signals that ask the agent to finish, and those that demand its end at once."""
    return (signal.SIGTERM, signal.SIGINT), (signal.SIGQUIT,)


def on_signal(loop: asyncio.AbstractEventLoop, number: int, react: Callable[[], None]) -> None:
    """Call `react` in the event loop whenever the signal comes."""
    loop.add_signal_handler(number, react)
