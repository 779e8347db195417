"""Calls of Linux that Python does not offer, or offers for all threads of a process at once.

The credentials, the mount namespace and the working directory are a thread's own on Linux. glibc
hides that for setgroups(), which is called by its number here.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

assert sys.platform != "win32"

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_SLAVE = 4096, 16384, 1 << 19

CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_KILL, CAP_SETGID, CAP_SETUID = 0, 1, 3, 5, 6, 7

_CAPABILITY_VERSION_3 = 0x20080522
_SETGROUPS = {
    "x86_64": 116,
    "aarch64": 159,
    "riscv64": 159,
    "loongarch64": 159,
    "ppc64le": 81,
    "s390x": 206,
    "armv7l": 206,
    "i686": 206,
}

_KEYCTL = {"x86_64": 250, "i686": 288, "armv7l": 311, "ppc64le": 271, "s390x": 280}
_KEYCTL_OF_OTHERS = 219
_JOIN_SESSION_KEYRING = 1

_libc = ctypes.CDLL(None, use_errno=True)


def can_set_groups() -> bool:
    """Whether set_groups works on this processor."""
    return sys.platform == "linux" and os.uname().machine in _SETGROUPS


def effective_capabilities() -> int:
    """The calling process's effective capabilities, one bit for each; 0 if they are not known."""
    try:
        with open("/proc/self/status", "rb") as file:
            status = file.read()
    except OSError:
        return 0
    return int(status.partition(b"\nCapEff:\t")[2].split()[0], 16)


def unshare(flags: int) -> None:
    """Give the calling thread what the flags name of its own. Raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def set_namespace(descriptor: int) -> None:
    """Move the calling thread into an open namespace. Raises OSError."""
    _check(_libc.setns(descriptor, 0), "setns")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount in the calling thread's namespace. Raises OSError with the target's name."""
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), flags, options.encode() or None
    )
    _check(result, target)


def set_groups(groups: tuple[int, ...]) -> None:
    """Set the supplementary groups of the calling thread. Raises OSError."""
    ids = (ctypes.c_uint32 * len(groups))(*groups)
    number = ctypes.c_long(_SETGROUPS[os.uname().machine])
    _check(_libc.syscall(number, ctypes.c_long(len(groups)), ids), "setgroups")


def set_file_ids(uid: int, gid: int) -> None:
    """Set as whom the calling thread uses files. Signals and ptrace treat it as before."""
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    # They tell no error; given an id that cannot be, they answer with the one in force.
    if _libc.setfsuid(-1) != uid or _libc.setfsgid(-1) != gid:
        raise PermissionError(f"files cannot be used as user {uid}")


def drop_capabilities() -> None:
    """Give up all capabilities of the calling thread, for good. Raises OSError."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def keyctl_number() -> int:
    """The number of the system call keyctl on this processor."""
    return _KEYCTL.get(os.uname().machine, _KEYCTL_OF_OTHERS)


def leave_session_keyring() -> None:
    """Give this process a session keyring of its own, without the keys of the one that it was
    started with. Does nothing where there are no keyrings, or it may use none. Raises OSError.
    """
    number = ctypes.c_long(keyctl_number())
    if _libc.syscall(number, ctypes.c_long(_JOIN_SESSION_KEYRING), None) == -1:
        error = ctypes.get_errno()
        if error not in (errno.ENOSYS, errno.EPERM, errno.EACCES):
            raise OSError(error, os.strerror(error), "keyctl")


def _check(result: int, what: str) -> None:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
