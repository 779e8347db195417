"""Where this process's own cgroups are, from /proc/self/mountinfo and /proc/self/cgroup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

_OCTAL = re.compile(r"\\([0-7]{3})")


def own_cgroups(
    mountinfo: Optional[str] = None, membership: Optional[str] = None
) -> dict[str, Path]:
    """The directory of this process's cgroup by hierarchy: "cgroup2", or a controller of version 1.

    The arguments are the texts of the two files, by default this process's own.
    """
    mountinfo = _read("mountinfo") if mountinfo is None else mountinfo
    membership = _read("cgroup") if membership is None else membership
    own = dict(_memberships(membership))
    found: dict[str, Path] = {}
    for kind, controllers, root, point in _cgroup_mounts(mountinfo):
        for name in ["cgroup2"] if kind == "cgroup2" else controllers:
            path = own.get(name)
            if path is not None and name not in found:
                directory = _below(point, root, path)
                if directory is not None:
                    found[name] = directory
    return found


def _memberships(text: str) -> Iterator[tuple[str, str]]:
    """The cgroups in a text with lines `8:pids:/path`, `4:cpu,cpuacct:/path`, and `0::/path` for
    version 2.
    """
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for name in ["cgroup2"] if number == "0" else controllers.split(","):
            yield name, path


def _cgroup_mounts(text: str) -> Iterator[tuple[str, list[str], str, str]]:
    """The type, super options, root within the hierarchy and mount point of each mount; see
    proc(5).
    """
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, rest = rest.partition(" ")
        if kind in ("cgroup", "cgroup2"):
            columns = fields.split()
            options = rest.split()[-1].split(",")
            yield kind, options, _unescape(columns[3]), _unescape(columns[4])


def _below(point: str, root: str, path: str) -> Optional[Path]:
    """The directory of this process's cgroup; None if it is not below what is mounted (a bind mount
    of another part of the hierarchy).
    """
    if root != "/":
        if path != root and not path.startswith(root + "/"):
            return None
        path = path[len(root) :]
    return Path(point, path.lstrip("/"))


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), text)


def _read(name: str) -> str:
    try:
        return Path("/proc/self", name).read_text()
    except OSError:
        return ""
