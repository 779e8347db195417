"""File descriptors: an error that comes of having none left is told as that.

SQLite and libpq say only that a file or a socket could not be opened.
"""

from __future__ import annotations

import errno
import os

from hostler_hub.store.errors import StoreExhausted, StoreUnavailable

_NONE_LEFT = {errno.EMFILE, errno.ENFILE}


def are_exhausted() -> bool:
    """Whether this process can open no further file now."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in _NONE_LEFT
    return False


def unavailable(text: str) -> StoreUnavailable:
    """The error for a database that could not be opened or reached; `text` is the driver's."""
    return StoreExhausted(text) if are_exhausted() else StoreUnavailable(text)
