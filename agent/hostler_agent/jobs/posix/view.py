"""A job's own view of the machine's files: a mount namespace, and what is mounted in it.

Runs in the forked process that is to become the job, before it gives up its rights. What the
machine does not permit is left out, and told by name: a mount namespace takes CAP_SYS_ADMIN, which
few containers have. What fails for any other reason is an error: the job is not started.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

assert sys.platform != "win32"

_CLONE_NEWNS = 0x00020000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_SLAVE = 32, 4096, 16384, 1 << 19
_FLAG_OF_OPTION = {
    b"nosuid": _MS_NOSUID,
    b"nodev": _MS_NODEV,
    b"noexec": _MS_NOEXEC,
    b"noatime": 1024,
    b"nodiratime": 2048,
    b"relatime": 1 << 21,
}
_NOT_PERMITTED = (errno.EPERM, errno.EACCES, errno.ENOSYS)

TEMPORARY = (b"/tmp", b"/var/tmp", b"/dev/shm")

_Mount = tuple[bytes, bytes, Sequence[bytes]]
"""The type, mount point and options of a mount."""

_libc = ctypes.CDLL(None, use_errno=True)

# How the kernel writes blanks in paths. A codec of Python might be hidden by the view that is made.
_OCTAL = re.compile(rb"\\([0-7]{3})")


class Wanted(NamedTuple):
    """plan.View, as the frames carry it."""

    private_tmp: bool
    binds: tuple[tuple[bytes, bytes, bool], ...]
    """Each a source, a target, and whether it is read-only."""
    hide_proc: bool
    cgroup_read_only: bool

    def parts(self) -> Iterator[str]:
        """The names of what is to be mounted."""
        names = ("private_tmp", "binds", "hide_proc", "cgroup_read_only")
        yield from (name for name in names if getattr(self, name))


class Namespace:
    """The mount namespace of one process. `missing` is what could not be had, as "PART: why"."""

    def __init__(self, *, entered: bool = False) -> None:
        """`entered`: the caller is in one already, which is to be changed."""
        self._entered = entered
        self._machines = -1
        self._refusal: Optional[OSError] = None
        self._sources: list[int] = []
        self.missing: list[str] = []

    def enter(self) -> None:
        """Take a namespace of this process's own. May be called ahead, and again."""
        if self._entered:
            return
        self._entered = True
        try:
            self._machines = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            _call("unshare", _CLONE_NEWNS)
            # What the machine mounts later is seen here, and nothing from here is seen there.
            _mount(None, b"/", None, _MS_REC | _MS_SLAVE)
        except OSError as error:
            self._refusal = error

    def leave(self) -> None:
        """Go back to the machine's own: what a job mounts that has no view is there for all. Raises
        OSError.
        """
        if self._entered and self._refusal is None:
            _call("setns", self._machines, _CLONE_NEWNS)

    def show(self, wanted: Wanted, shared: Sequence[int] = ()) -> None:
        """Enter the open namespaces that others share, and mount what is wanted besides. Raises
        OSError, with the path that it is about.
        """
        if shared:
            self._join(shared)
        if not any(wanted.parts()):
            return
        self.enter()
        # Opened before anything is mounted over them.
        self._sources = [
            os.open(source, os.O_PATH | os.O_CLOEXEC) for source, _target, _ in wanted.binds
        ]
        for part in wanted.parts():
            try:
                if self._refusal is not None:
                    raise self._refusal
                getattr(self, f"_{part}")(wanted)
            except OSError as error:  # noqa: PERF203 - each is told by name
                if error.errno not in _NOT_PERMITTED and error is not self._refusal:
                    raise
                self.missing.append(f"{part}: {os.strerror(error.errno or errno.EIO)}")

    def _join(self, namespaces: Sequence[int]) -> None:
        for namespace in namespaces:
            _call("setns", namespace, 0)
        # What is mounted besides needs another one.
        self._entered, self._refusal = False, None

    def _private_tmp(self, _wanted: Wanted) -> None:
        for directory in TEMPORARY:
            if os.path.isdir(directory) and not os.path.islink(directory):  # noqa: PTH112, PTH114
                _mount(b"tmpfs", directory, b"tmpfs", _MS_NOSUID | _MS_NODEV, b"mode=1777")

    def _binds(self, wanted: Wanted) -> None:
        for descriptor, (_source, target, read_only) in zip(self._sources, wanted.binds):
            is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            if wanted.private_tmp and is_directory and _is_temporary(target):
                os.makedirs(target, mode=0o755, exist_ok=True)  # noqa: PTH103
            _mount(b"/proc/self/fd/%d" % descriptor, target, None, _MS_BIND)
            if read_only:
                _make_read_only(target, _options(_mounts(), target))

    def _hide_proc(self, _wanted: Wanted) -> None:
        if _kernel() < (5, 8):
            # There is one /proc for all mounts of it, the machine's own included.
            raise PermissionError(errno.EPERM, "Linux is older than 5.8", "/proc")
        below = [point for _type, point, _options in _mounts() if point.startswith(b"/proc/")]
        if any(not point.startswith(b"/proc/sys/fs/binfmt_misc") for point in below):
            # A container's masks: a new /proc would be without them.
            raise PermissionError(errno.EPERM, "there are mounts below it", "/proc")
        flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
        _mount(b"proc", b"/proc", b"proc", flags, b"hidepid=2")

    def _cgroup_read_only(self, _wanted: Wanted) -> None:
        for kind, point, options in _mounts():
            if kind in (b"cgroup", b"cgroup2"):
                _make_read_only(point, options)


def no_new_privileges() -> None:
    """Raises OSError."""
    _call("prctl", 38, 1, 0, 0, 0)


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def drop_capabilities() -> None:
    """Give up all capabilities of this process, also those that a program would inherit. An agent
    that is no root, and has some by its unit, keeps them over a change of user. Raises OSError.
    """
    # Ambient ones came with Linux 4.3.
    if _libc.prctl(47, 4, 0, 0, 0) and ctypes.get_errno() != errno.EINVAL:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    header = _CapHeader(0x20080522, 0)
    _call("capset", ctypes.byref(header), (ctypes.c_uint32 * 6)())


def _mounts() -> list[_Mount]:
    """All mounts that this process sees; see proc(5)."""
    found: list[_Mount] = []
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            fields, _, rest = line.partition(b" - ")
            columns = fields.split()
            point = _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), columns[4])
            found.append((rest.split()[0], point, columns[5].split(b",")))
    return found


def _options(mounts: list[_Mount], point: bytes) -> Sequence[bytes]:
    """The options of what is mounted there, the uppermost of all."""
    return next(
        (options for _type, each, options in reversed(mounts) if each == os.path.realpath(point)),
        (),
    )


def _make_read_only(point: bytes, options: Sequence[bytes]) -> None:
    # Who is not the owner of a mount may only add to its flags, and a remount states all of them.
    kept = 0
    for option in options:
        kept |= _FLAG_OF_OPTION.get(option, 0)
    _mount(None, point, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept)


def _mount(
    source: Optional[bytes],
    target: bytes,
    kind: Optional[bytes],
    flags: int,
    data: Optional[bytes] = None,
) -> None:
    try:
        _call("mount", source, target, kind, ctypes.c_ulong(flags), data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, target) from error


def _is_temporary(path: bytes) -> bool:
    return any(path.startswith(directory + b"/") for directory in TEMPORARY)


def _kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
