"""The namespaces that the jobs of one slot share: what they see of the file system, and their
System V IPC and message queues.

They are made in a thread that leaves its agent's, and live as long as a descriptor of them is open.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from typing import Callable, Optional

assert sys.platform != "win32"

from hostler_agent.jobs.posix import libc

KINDS = ("mnt", "ipc")


class Namespaces:
    """Open namespaces of mounts and of IPC."""

    def __init__(self, descriptors: Sequence[int]) -> None:
        self.descriptors = tuple(descriptors)

    @classmethod
    def make(cls, arrange: Callable[[], None]) -> Namespaces:
        """Make new ones. `arrange` is called inside and mounts what differs. Raises OSError."""
        made: list[int] = []
        failure: list[BaseException] = []

        def inside() -> None:
            try:
                libc.unshare(libc.CLONE_FS | libc.CLONE_NEWNS | libc.CLONE_NEWIPC)
                # What the machine mounts later is seen inside, and nothing of ours outside.
                libc.mount("none", "/", "", libc.MS_REC | libc.MS_SLAVE)
                arrange()
                made.extend(map(_open_own, KINDS))
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                failure.append(error)

        thread = threading.Thread(target=inside, name="namespaces")
        thread.start()
        thread.join()
        if failure:
            for descriptor in made:
                os.close(descriptor)
            raise failure[0]
        return cls(made)

    def close(self) -> None:
        descriptors, self.descriptors = self.descriptors, ()
        for descriptor in descriptors:
            os.close(descriptor)


def _open_own(kind: str) -> int:
    return os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def problem() -> Optional[str]:
    """Why this process can make no namespaces; None if it can."""
    try:
        Namespaces.make(lambda: None).close()
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return None
