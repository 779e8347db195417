"""The process's file descriptors: as many as the system allows, and which part connections get.

A hub that has given all of them to clients can neither open its database nor start an instance, so
connections get a share, and the rest is left for the store, for files and for drivers.
"""

from __future__ import annotations

import contextlib
import resource

# Left for the store, files, drivers and what the process itself has open.
_LEAST_RESERVED = 64
_MOST_RESERVED = 1024


def raise_limit() -> None:
    """Raise the soft limit of open files to the hard one, which is the operator's (`ulimit -Hn`,
    systemd's `LimitNOFILE=`). The soft one is 1,024 on most systems, for programs that use
    select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # an unlimited hard limit may be refused
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def for_connections() -> int:
    """How many descriptors connections may use at the same time: the soft limit, less a quarter of
    it (at least 64, at most 1,024).
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        soft = 2**20
    reserved = min(max(soft // 4, _LEAST_RESERVED), _MOST_RESERVED)
    return max(soft - reserved, 1)
