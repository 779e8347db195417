"""What the jobs of one slot see of the file system.

- Their own directories for temporary files, and their own entry in /etc/passwd and /etc/group.
- The agent's base directory, even below directories that only the agent may enter: the first of
  those is covered by one that holds nothing but the way to the base directory. Paths stay the same.
- Of /proc only their own processes. The control groups can only be read.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

assert sys.platform != "win32"

from hostler_agent.jobs.plan import BuildUser
from hostler_agent.jobs.posix import libc
from hostler_agent.jobs.posix import view as machine_view

PASSWD, GROUP = Path("/etc/passwd"), Path("/etc/group")
MEMORY = Path("/dev/shm")  # noqa: S108
TEMPORARY = {"/tmp": "tmp", "/var/tmp": "var-tmp", "/dev/shm": "shm"}  # noqa: S108
"""The machine's directories for temporary files, and the names of those that a slot has instead."""
_QUEUES = "/dev/mqueue"
_PUBLIC_MODE = 0o1777


@dataclass(frozen=True)
class SlotDirectories:
    """The directories of one slot. `own` is the agent's alone and holds the others, but for `home`
    and for `shm`, which is in memory where the machine has such a place.
    """

    base: Path
    own: Path
    home: Path
    shm: Path

    def temporary(self, place: str) -> Path:
        """The directory that takes the place of one for temporary files."""
        return self.shm if place == str(MEMORY) else self.own / TEMPORARY[place]

    @property
    def cover(self) -> Path:
        return self.own / "cover"


def cover_of(base: Path) -> Optional[Path]:
    """The directory above `base` that must be covered for a stranger to reach `base`: the first one
    that it may not enter or that is private to each slot; None if it can be reached as it is.
    """
    for above in reversed(base.parents):
        if str(above) in TEMPORARY or not above.stat().st_mode & stat.S_IXOTH:
            return above
    return None


def make_directories(directories: SlotDirectories, user: BuildUser) -> None:
    """Make the slot's directories, which do not exist yet. Raises OSError."""
    directories.own.mkdir(mode=0o700)
    for place in TEMPORARY:
        if Path(place).is_dir():
            made = directories.temporary(place)
            made.mkdir(mode=0o700)
            made.chmod(_PUBLIC_MODE)
    cover = cover_of(directories.base)
    if cover is not None:
        _way(directories, cover).mkdir(mode=0o755, parents=True, exist_ok=True)
    (directories.own / "passwd").write_text(_passwd(PASSWD.read_text(), user))
    (directories.own / "group").write_text(_group(GROUP.read_text(), user))


def arrange(directories: SlotDirectories) -> None:
    """Mount the slot's view in the namespace of the calling thread. Raises OSError."""
    base, cover = directories.base, cover_of(directories.base)
    covering: dict[str, Path] = {
        place: directories.temporary(place) for place in TEMPORARY if Path(place).is_dir()
    }
    if cover is not None:
        _bind(base, _way(directories, cover))
        # Before the others, whose sources are below the base directory.
        _bind(covering.pop(str(cover), directories.cover), cover)
    for place, directory in covering.items():
        _bind(directory, Path(place))
    _bind(directories.own / "passwd", PASSWD)
    _bind(directories.own / "group", GROUP)
    if os.path.ismount(_QUEUES):
        flags = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
        libc.mount("mqueue", _QUEUES, "mqueue", flags)
    # What the machine does not permit of these is left out: they hide no more than names.
    machine_view.Namespace(entered=True).show(
        machine_view.Wanted(private_tmp=False, binds=(), hide_proc=True, cgroup_read_only=True)
    )


def _way(directories: SlotDirectories, cover: Path) -> Path:
    """Where the base directory is below the directory that covers `cover`."""
    place = str(cover)
    covering = directories.temporary(place) if place in TEMPORARY else directories.cover
    return covering / directories.base.relative_to(cover)


def _bind(source: Path, target: Path) -> None:
    libc.mount(str(source), str(target), "", libc.MS_BIND | libc.MS_REC)


def _passwd(text: str, user: BuildUser) -> str:
    about = f"{user.name}:x:{user.uid}:{user.gid}:build user:{user.home}:/bin/sh"
    return "".join(f"{line}\n" for line in (*_others(text, user.name), about))


def _group(text: str, user: BuildUser) -> str:
    lines = [_with_member(line, user) for line in _others(text, user.name)]
    return "".join(f"{line}\n" for line in (*lines, f"{user.name}:x:{user.gid}:"))


def _others(text: str, name: str) -> Iterator[str]:
    return (line for line in text.splitlines() if line.partition(":")[0] != name)


def _with_member(line: str, user: BuildUser) -> str:
    fields: Sequence[str] = line.split(":")
    if len(fields) != 4 or not fields[2].isdigit() or int(fields[2]) not in user.groups:
        return line
    members = [*filter(None, fields[3].split(",")), user.name]
    return ":".join((*fields[:3], ",".join(members)))
