"""`python -m benchmarks.flooder URL NAME PASSWORD KIND`: an agent that sends as much as it can.

It attaches, prints `Attached`, waits for a command, prints `Flooding`, and floods until it is
ended. What the hub asks of it is answered, in between.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect

from hostler_agent.wire import messages
from hostler_agent.wire.extension import Handshake
from hostler_agent.wire.session import Requested, Role, Session

_BATCH = 1000
_INFO = {"system": "posix", "basedir": "/w", "worker_commands": {"shell": "3.3"}}


def _frames(made: Iterator[dict[str, Any]], count: int) -> bytes:
    """So many messages as frames; numbers repeat when the first are long answered."""
    numbered = ({"seq_number": 1000 + number, **next(made)} for number in range(count))
    packed = (msgpack.packb(each, use_bin_type=True) for each in numbered)
    return b"".join(Frame(Opcode.BINARY, each).serialize(mask=True) for each in packed)


def _pings(_command: str) -> bytes:
    return Frame(Opcode.PING, b"").serialize(mask=True) * _BATCH


def _keepalives(_command: str) -> bytes:
    return _frames(itertools.repeat({"op": "keepalive"}), _BATCH)


def _lines(command: str) -> bytes:
    line = ["stdout", ["x\n", [1], [0.0]]]
    return _frames(itertools.repeat(_update(command, [line])), _BATCH)


def _large_updates(command: str) -> bytes:
    """Messages of as many items as one may have."""
    line = ["stdout", ["x\n", [1], [0.0]]]
    return _frames(itertools.repeat(_update(command, [line] * 6500)), 100)


def _update(command: str, pairs: list[Any]) -> dict[str, Any]:
    return {"op": "update", "command_id": command, "args": pairs}


FLOODS: dict[str, Callable[[str], bytes]] = {
    "pings": _pings,
    "keepalives": _keepalives,
    "lines": _lines,
    "large updates": _large_updates,
}


class _Agent:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._session = Session(Role.AGENT)
        self._started = threading.Event()
        self._command = ""

    def answer_all(self) -> None:
        """Answer what the hub asks until it hangs up."""
        try:
            for frame in self._socket:
                assert isinstance(frame, bytes)
                event = self._session.receive(frame)
                if isinstance(event, Requested):
                    self._answer(event)
        except ConnectionClosed as end:
            print(f"Closed {end}", flush=True)
        self._started.set()

    def _answer(self, event: Requested) -> None:
        result = _INFO if isinstance(event.message, messages.GetWorkerInfo) else None
        self._socket.send(self._session.answer(event.seq_number, result))
        if isinstance(event.message, messages.SetWorkerSettings):
            print("Attached", flush=True)
        if isinstance(event.message, messages.StartCommand):
            self._command = event.message.command_id
            self._started.set()

    def flood(self, kind: str) -> None:
        self._started.wait()
        batch = FLOODS[kind](self._command)
        print("Flooding", flush=True)
        while True:  # until it is ended, or the hub hangs up
            self._socket.socket.sendall(batch)


def main(url: str, name: str, password: str, kind: str) -> None:
    headers = Handshake(name, password).headers()
    with connect(url, additional_headers=headers, proxy=None, ping_interval=None) as socket:
        agent = _Agent(socket)
        threading.Thread(target=agent.answer_all, name="answers", daemon=True).start()
        agent.flood(kind)


if __name__ == "__main__":
    main(*sys.argv[1:])
