"""System V IPC objects of a user, found in /proc/sysvipc and removed by their ids."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

assert sys.platform != "win32"

PROC = Path("/proc/sysvipc")
_IPC_RMID = 0
_KINDS = {"shm": "shmid", "msg": "msqid", "sem": "semid"}


@dataclass(frozen=True)
class IpcObject:
    """A shared memory segment (`shm`), message queue (`msg`) or set of semaphores (`sem`)."""

    kind: str
    id: int


def objects_of(uid: int) -> list[IpcObject]:
    """The objects that the user owns or has made."""
    return [found for kind in _KINDS for found in _objects(kind, uid)]


def remove(found: IpcObject) -> None:
    """Remove an object. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if found.kind == "shm":
        result = libc.shmctl(found.id, _IPC_RMID, None)
    elif found.kind == "msg":
        result = libc.msgctl(found.id, _IPC_RMID, None)
    else:
        result = libc.semctl(found.id, 0, _IPC_RMID)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"{found.kind} {found.id}")


def _objects(kind: str, uid: int) -> Iterator[IpcObject]:
    try:
        lines = (PROC / kind).read_text().splitlines()
    except OSError:
        return  # a kernel without it
    if not lines:
        return
    names = lines[0].split()
    for line in lines[1:]:
        row = dict(zip(names, map(int, line.split())))
        if uid in (row["uid"], row["cuid"]):
            yield IpcObject(kind, row[_KINDS[kind]])
