"""Why a request was not carried out, for the hub that sent it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Optional


class HostError(Exception):
    """`kind` is one of KINDS; the text names the path, or the option, and the system's words."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


REQUEST = "request"
"""the request is not one of ours"""
DISK_FULL = "disk-full"
NOT_PERMITTED = "not-permitted"
GONE = "gone"
"""the instance was ended before this start of it arrived"""
BUSY = "busy"
"""somebody else is starting or ending the instance"""
SURVIVES = "survives"
"""the instance, or what its jobs left, cannot be killed"""
SYSTEM = "system"

KINDS = (REQUEST, DISK_FULL, NOT_PERMITTED, GONE, BUSY, SURVIVES, SYSTEM)

_OF_ERRNO = {
    errno.ENOSPC: DISK_FULL,
    errno.EDQUOT: DISK_FULL,
    errno.EACCES: NOT_PERMITTED,
    errno.EPERM: NOT_PERMITTED,
    errno.EROFS: NOT_PERMITTED,
}


def of_system(error: OSError, doing: str, path: Optional[Path] = None) -> HostError:
    """The system's refusal, in its own words; `path` where it names none (as for a write)."""
    words = error.strerror or str(error)
    named = error.filename if isinstance(error.filename, str) else path
    where = f" {named}" if named else ""
    return HostError(kind_of(error), f"cannot {doing}{where}: {words}")


def kind_of(error: OSError) -> str:
    """The one of KINDS that the system's refusal is."""
    return _OF_ERRNO.get(error.errno or 0, SYSTEM)
