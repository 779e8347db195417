"""The reasons why a request was not carried out, for the hub that sent it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Optional


class HostError(Exception):
    """A request was not carried out. `kind` is one of KINDS; the text names the path or the option,
    and has the system's message.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


REQUEST = "request"
"""The request is not valid."""
DISK_FULL = "disk-full"
NOT_PERMITTED = "not-permitted"
GONE = "gone"
"""The instance was ended before this start of it arrived."""
BUSY = "busy"
"""Another process is starting or ending the instance."""
SURVIVES = "survives"
"""The instance, or a process that its jobs left, cannot be killed."""
LEFT = "left"
"""All processes have ended, and something of the instance's directory cannot be removed."""
SYSTEM = "system"

KINDS = (REQUEST, DISK_FULL, NOT_PERMITTED, GONE, BUSY, SURVIVES, LEFT, SYSTEM)

_OF_ERRNO = {
    errno.ENOSPC: DISK_FULL,
    errno.EDQUOT: DISK_FULL,
    errno.EACCES: NOT_PERMITTED,
    errno.EPERM: NOT_PERMITTED,
    errno.EROFS: NOT_PERMITTED,
}


def of_system(error: OSError, doing: str, path: Optional[Path] = None) -> HostError:
    """A HostError from an OSError, with the system's message. `path` is used if the error has no
    file name (as after a write).
    """
    words = error.strerror or str(error)
    named = error.filename if isinstance(error.filename, str) else path
    where = f" {named}" if named else ""
    return HostError(kind_of(error), f"cannot {doing}{where}: {words}")


def kind_of(error: OSError) -> str:
    """The kind of HostError for this OSError: one of KINDS."""
    return _OF_ERRNO.get(error.errno or 0, SYSTEM)
