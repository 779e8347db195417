"""What POSIX locks a process holds on a file, in the kernel's own words."""

from __future__ import annotations

from pathlib import Path


def held(pid: int, path: Path) -> set[str]:
    """The kinds, "READ" and "WRITE", of the locks that the process holds on the file."""
    inode = str(path.stat().st_ino)
    # proc_locks(5): "2: POSIX  ADVISORY  READ 8686 fe:00:15344226 128 128"; "->" begins a waiter.
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    locks = [words for words in lines if words[1] == "POSIX"]
    return {
        kind
        for _, _, _, kind, owner, place, *_ in locks
        if int(owner) == pid and place.rpartition(":")[2] == inode
    }
