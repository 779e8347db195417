"""A file system that never answers: whoever touches it cannot be killed until it is released (E7).

It is mounted by FUSE's own protocol, of which it speaks no more than the greeting. Once it has
read a request, the kernel lets not even SIGKILL end the wait for the answer.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import threading
from pathlib import Path
from typing import Self

MISSING = "needs root and /dev/fuse: modprobe fuse"

_IN_HEADER = struct.Struct("<IIQQIIII")
_OUT_HEADER = struct.Struct("<IiQ")
_INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
_FUSE_INIT = 26
_ASKS = frozenset({1, 3, 14, 27})  # lookup, getattr, open, opendir
_MNT_DETACH = 2
_LIBC = ctypes.CDLL(None, use_errno=True)


def is_available() -> bool:
    return os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)


class HangingDisk:
    """As a context manager; whoever waits for it is released at its end."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "hanging"
        self.path.mkdir()
        self.touched = threading.Event()
        """somebody waits, and cannot be killed"""
        self._device = -1
        self._server = threading.Thread(target=self._serve, name="hanging disk", daemon=True)

    def __enter__(self) -> Self:
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0".encode()
        if _LIBC.mount(b"hanging", os.fsencode(self.path), b"fuse", 0, options) != 0:
            number = ctypes.get_errno()
            os.close(self._device)
            raise OSError(number, os.strerror(number), str(self.path))
        self._server.start()
        return self

    def release(self) -> None:
        """Everybody's wait ends with an error. Twice does no harm."""
        if self._device >= 0:
            # Not only closed: a job that was forked meanwhile might have it, too.
            _LIBC.umount2(os.fsencode(self.path), _MNT_DETACH | 1)
            self._server.join()
            os.close(self._device)
            self._device = -1

    def __exit__(self, *_: object) -> None:
        self.release()
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._device, 1 << 17)
            except OSError:  # ENODEV: it is mounted no more
                return
            _size, operation, unique, *_rest = _IN_HEADER.unpack_from(request)
            if operation == _FUSE_INIT:
                greeting = _INIT_OUT.pack(7, 31, 4096, 0, 16, 12, 4096, 1, 1, 0, 0)
                head = _OUT_HEADER.pack(_OUT_HEADER.size + len(greeting), 0, unique)
                os.write(self._device, head + greeting)
            elif operation in _ASKS:
                self.touched.set()
