"""A Unix socket that leads agents to the hub, for containers of this machine.

A container has a loopback interface of its own, so it cannot reach a hub that listens on this
machine's; and plain ws:// over a bridge would show tokens to whoever listens there. So the
directory of this socket is mounted into containers, which then need no network at all. The socket
takes whoever can reach it: the state directory above it is the hub's user's alone, and nothing but
the agents' own route answers here.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from hostler_agent.wire import extension

_BACKLOG = 2048


@contextlib.contextmanager
def listen(path: Path) -> Iterator[socket.socket]:
    """Listen on the socket, and close it in the end. The caller holds the state directory's lock,
    so a socket file that exists has no listener.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.parent.chmod(0o755)  # a container's user is another one than ours, or none we know
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        # A socket's address has 107 bytes, a state directory's path may be longer.
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.close(directory)
        path.chmod(0o666)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        yield listener


class AgentsOnly:
    """An ASGI application that serves the agents' route alone to clients of the socket."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if not _came_by_socket(scope) or _is_for_agents(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(_nothing_here())
        else:
            await _nothing_here()(scope, receive, send)


def _came_by_socket(scope: Scope) -> bool:
    if scope["type"] == "lifespan":
        return False
    server = scope.get("server")
    return server is None or server[1] is None  # a path has no port


def _is_for_agents(scope: Scope) -> bool:
    return bool(scope["type"] == "websocket" and scope["path"] == extension.PATH)


def _nothing_here() -> PlainTextResponse:
    return PlainTextResponse("This socket is for agents", 404)
