"""Names of artifacts: relative paths that are valid and harmless on every system.

A worker chooses them (U2), so they may not lead upwards, be absolute, name a drive, or contain
characters that a terminal or an HTTP header would interpret.
"""

from __future__ import annotations

import re

PATH_SIZE_BYTES = 1024
NAME_SIZE_BYTES = 255
DEPTH = 64

_REFUSED = re.compile(r"[\x00-\x1f\x7f\\]")
_DRIVE = re.compile(r"[A-Za-z]:$")


def parts_of(path: str) -> tuple[str, ...]:
    """The names in ``path``. Raises ValueError, whose text says what is wrong."""
    parts = tuple(path.split("/"))
    shown = ascii(path[:200])
    if len(path.encode("utf-8", "replace")) > PATH_SIZE_BYTES:
        raise ValueError(f"path {shown} is longer than {PATH_SIZE_BYTES} bytes")
    if len(parts) > DEPTH:
        raise ValueError(f"path {shown} is deeper than {DEPTH}")
    if _REFUSED.search(path):
        raise ValueError(f"path {shown} holds a control character or a backslash")
    if _DRIVE.match(parts[0]):
        raise ValueError(f"path {shown} begins with a drive")
    for part in parts:
        if part in ("", ".", ".."):
            raise ValueError(f"path {shown} is not relative and plain: no empty part, . or ..")
        if len(part.encode("utf-8", "surrogatepass")) > NAME_SIZE_BYTES:
            raise ValueError(f"path {shown} has a name longer than {NAME_SIZE_BYTES} bytes")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ValueError(f"path {shown} is not UTF-8") from None
    return parts
