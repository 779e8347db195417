"""systemd's descriptor store: keeps a secret for the agent's next process, in memory alone.

A unit with `FileDescriptorStoreMax=` may hand over descriptors (sd_notify(3), `FDSTORE=1`), which
its next process inherits (sd_listen_fds(3)). The secret is in a sealed memfd, so that it is in no
file. Other processes of the agent's user cannot open it: they can neither look at a process that
forbids that (`machine.forbid_inspection`), nor at the service manager.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import sys
from typing import Optional

assert sys.platform != "win32"

NAME = "hostler"
FIRST_DESCRIPTOR = 3
MAX_BYTES = 64 * 1024
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def keep_secret(secret: bytes) -> bool:
    """Hand the secret over for the agent's next process, in the place of an earlier one.

    Returns whether it was handed over; the service manager drops it where the unit has no store.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    try:
        descriptor = _sealed(secret)
    except OSError:
        return False
    try:
        _notify(address, b"FDSTOREREMOVE=1\nFDNAME=%s" % NAME.encode())
        _notify(address, b"FDSTORE=1\nFDNAME=%s" % NAME.encode(), descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def kept_secret() -> Optional[bytes]:
    """The secret that the agent's process before this one has handed over, or None.

    Its descriptor is closed, and the variables that tell of it are removed from the environment.
    """
    told = [os.environ.pop(name, "") for name in _VARIABLES]
    pid, count, names = told
    if pid != str(os.getpid()) or not count.isdigit():
        return None
    secret = None
    for descriptor, name in enumerate(names.split(":")[: int(count)], FIRST_DESCRIPTOR):
        if name == NAME:
            secret = _read(descriptor)
            os.close(descriptor)
    return secret


def _sealed(secret: bytes) -> int:
    descriptor = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(descriptor, secret)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _read(descriptor: int) -> Optional[bytes]:
    with contextlib.suppress(OSError):
        return os.pread(descriptor, MAX_BYTES, 0)
    return None


def _notify(address: str, message: bytes, descriptor: Optional[int] = None) -> None:
    rights = [] if descriptor is None else [descriptor]
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", rights))]
    path = f"\0{address[1:]}" if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifying:
        notifying.sendmsg([message], ancillary if rights else [], 0, path)
