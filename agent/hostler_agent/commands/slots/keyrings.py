"""The kernel's keyrings of a user: emptied by a process of that user, since nobody else may."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

assert sys.platform != "win32"

from hostler_agent.jobs.plan import BuildUser
from hostler_agent.jobs.posix import libc

KEY_USERS = Path("/proc/key-users")
OWN_KEYS = 2
"""The number of keys of a user with nothing but the two keyrings that the kernel makes for it."""
_DEADLINE_S = 10.0

# keyctl(2) has no function in the C library. Clears the user's, its sessions' and its persistent
# keyring; a keyring that does not exist is empty.
# What is imported is loaded while it may still be read.
_CLEAR = """
import ctypes, errno, os, sys
gid, uid, keyctl = map(int, sys.argv[1:])
call = ctypes.CDLL(None, use_errno=True).syscall
os.setgroups(())
os.setresgid(gid, gid, gid)
os.setresuid(uid, uid, uid)
CLEAR, PERSISTENT = 7, 22
call(keyctl, 1, None)
call(keyctl, PERSISTENT, -1, -3)
for keyring in (-3, -4, -5):
    if call(keyctl, CLEAR, keyring) == -1:
        if ctypes.get_errno() not in (errno.ENOKEY, errno.ENOSYS):
            sys.exit(1)
"""


def has_keys(uid: int) -> bool:
    """Whether the kernel accounts keys to the user beyond its empty keyrings."""
    try:
        lines = KEY_USERS.read_text().splitlines()
    except OSError:
        return False
    for line in lines:
        owner, _, rest = line.partition(":")
        if int(owner) == uid:
            return int(rest.split()[0]) > OWN_KEYS
    return False


def clear(user: BuildUser) -> bool:
    """Empty the user's keyrings. Returns whether that succeeded."""
    numbers = map(str, (user.gid, user.uid, libc.keyctl_number()))
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _CLEAR, *numbers],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_DEADLINE_S,
            check=False,
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
