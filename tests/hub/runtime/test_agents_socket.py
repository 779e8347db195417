"""The socket that is mounted into containers: agents get in, and see nothing else."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from hostler_hub.runtime import agents_socket


async def everything(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("the hub")(scope, receive, send)


async def test_a_path_that_is_too_long_for_an_address_is_served(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 120) / "agents" / "hub.sock"
    for _ in range(2):  # a killed hub leaves its socket
        with agents_socket.listen(path) as listener:
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
            assert stat.S_IMODE(path.stat().st_mode) == 0o666
            assert listener.getsockname().startswith("/proc/self/fd/")
            assert os.get_blocking(listener.fileno()) is False


async def test_a_directory_that_anybody_could_write_becomes_ours(tmp_path: Path) -> None:
    path = tmp_path / "agents" / "hub.sock"
    path.parent.mkdir()
    path.parent.chmod(0o777)
    path.write_text("somebody's")
    path.chmod(0o777)
    with agents_socket.listen(path):
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
        assert stat.S_ISSOCK(path.stat().st_mode)


async def answer(server: Any, kind: str, path: str) -> list[Any]:
    """What AgentsOnly sends for one request that came to `server`."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request" if kind == "http" else "websocket.connect"}

    scope = {
        "type": kind,
        "path": path,
        "server": server,
        "method": "GET",
        "headers": [],
        "extensions": {"websocket.http.response": {}},
    }
    await agents_socket.AgentsOnly(everything)(scope, receive, send)
    return sent


async def test_over_tcp_everything_is_there() -> None:
    sent = await answer(("127.0.0.1", 8010), "http", "/api/v1/workers")
    assert sent[0]["status"] == 200


async def test_by_the_socket_nothing_but_the_agents_route_is() -> None:
    by_socket = ("/run/hub.sock", None)
    for path in ("/api/v1/workers", "/healthz", "/api/v1/agents/connect"):
        assert (await answer(by_socket, "http", path))[0]["status"] == 404
    refused = await answer(by_socket, "websocket", "/api/v1/builds/follow")
    assert refused[0]["type"] == "websocket.http.response.start"
    assert refused[0]["status"] == 404
    assert b"the hub" in (await answer(by_socket, "websocket", "/api/v1/agents/connect"))[1]["body"]
