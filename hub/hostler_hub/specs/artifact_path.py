"""Names of artifacts: relative paths with slashes, whose parts are whatever POSIX allows.

A worker chooses them (U2), and nothing on the hub is called by them: its files are named by ids.
So a name may hold control characters, backslashes, or what means something on Windows; whoever
shows it escapes it, and whoever writes a file of that name refuses what its own system takes for
more than a name.
"""

from __future__ import annotations

from hostler_hub.specs.printable import one_line

PATH_SIZE_BYTES = 1024
NAME_SIZE_BYTES = 255
DEPTH = 64


def parts_of(path: str) -> tuple[str, ...]:
    """The names in ``path``. Raises ValueError, whose text says what is wrong."""
    parts = tuple(path.split("/"))
    shown = ascii(path[:200])
    if len(path.encode("utf-8", "replace")) > PATH_SIZE_BYTES:
        raise ValueError(f"path {shown} is longer than {PATH_SIZE_BYTES} bytes")
    if len(parts) > DEPTH:
        raise ValueError(f"path {shown} is deeper than {DEPTH}")
    if "\0" in path:
        raise ValueError(f"path {shown} holds a NUL character")
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


def decoded(path: str) -> str:
    """A path whose bytes were decoded with surrogateescape, with each byte that is not UTF-8 as its
    code, such as ``\\xff``: names that no text can hold are rare, and no reason to lose the others.
    """
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def shown(path: str) -> str:
    """The path for people, on one line and at most 200 characters long."""
    return one_line(path if len(path) <= 200 else f"{path[:199]}…")
