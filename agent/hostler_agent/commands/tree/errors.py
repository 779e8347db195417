"""What is wrong with a path in a tree."""

from __future__ import annotations

import errno


def leads_out(path: str, root: str) -> OSError:
    """The error for a path that a link leads out of the tree."""
    return OSError(errno.EXDEV, f"a link leads out of {root}; follow_links: true follows it", path)


def neither(path: str) -> OSError:
    """The error for a pipe, a socket or a device."""
    return OSError(errno.EINVAL, "not a regular file", path)
