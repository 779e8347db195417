"""Frames between the agent, its spawner and the processes that the spawner has forked.

A frame is a 4-byte big-endian length and a marshalled tuple: both ends are the same interpreter,
and the sockets are nobody else's. Descriptors come with a frame's first byte.
"""

from __future__ import annotations

import array
import marshal
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Any, Optional

assert sys.platform != "win32"

_DESCRIPTORS = 5
"""The most that come with one: a job's three streams, and its slot's namespaces of mounts and of
IPC."""


def receive(channel: socket.socket) -> Optional[tuple[tuple[Any, ...], list[int]]]:
    """The next frame and the descriptors that came with it; None if the other end is gone."""
    descriptors = array.array("i")
    room = socket.CMSG_SPACE(_DESCRIPTORS * descriptors.itemsize)
    # Close-on-exec, or a job would inherit them twice.
    flags = socket.MSG_WAITALL | socket.MSG_CMSG_CLOEXEC
    header, ancillary, _flags, _address = channel.recvmsg(4, room, flags)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    if len(header) < 4:
        return None
    (length,) = struct.unpack(">I", header)
    chunks = []
    while length:
        chunk = channel.recv(min(length, 1 << 16))
        if not chunk:
            return None
        chunks.append(chunk)
        length -= len(chunk)
    return marshal.loads(b"".join(chunks)), list(descriptors)  # noqa: S302 - see above


def send(channel: socket.socket, frame: tuple[Any, ...], descriptors: Sequence[int] = ()) -> None:
    """Send a frame. Raises OSError if the other end is gone."""
    payload = marshal.dumps(frame)
    data = struct.pack(">I", len(payload)) + payload
    if descriptors:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        data = data[channel.sendmsg([data], rights) :]
    if data:  # a send of nothing would fail if the other end had taken it all and gone on
        channel.sendall(data)
