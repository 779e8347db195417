"""An agent's end of a connection, in memory: the wire as it is, and a peer that can misbehave."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from starlette.websockets import WebSocket

from hostler_agent.wire import extension, messages
from hostler_agent.wire.extension import AgentReport, Handshake
from hostler_agent.wire.session import Requested, Role, Session


@dataclass
class Peer:
    """Speaks ASGI on one side, as a server would, and the agents' protocol on the other.

    `silent` answers nothing any more; `stuck` takes nothing any more, as a stopped process whose
    buffers are full.
    """

    handshake: Handshake
    boot_id: str | None = "boot"
    process: str = "process"
    client: str = "192.0.2.7"
    silent: bool = False
    stuck: bool = False
    clock_s: float | None = None
    version: str = "4.3.0"
    facts: dict[str, Any] = field(default_factory=dict)
    tools: Any = None
    """What tool_versions is answered with; None: it is no command of this peer's."""
    completes: bool = True
    """whether a command ever ends"""
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    """of the answer that refused it"""
    close_code: int | None = None
    close_reason: str = ""
    asked: list[str] = field(default_factory=list)
    wire: Session = field(default_factory=lambda: Session(Role.AGENT))

    def __post_init__(self) -> None:
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.incoming.put_nowait({"type": "websocket.connect"})
        self.settled = asyncio.Event()  # told the hub's terms, or refused
        self.closed = asyncio.Event()
        self.was_asked = asyncio.Event()
        self.was_started = asyncio.Event()  # a command
        self.unstuck = asyncio.Event()

    def websocket(self) -> WebSocket:
        headers = [(k.lower().encode(), v.encode()) for k, v in self.handshake.headers().items()]
        scope = {
            "type": "websocket",
            "path": "/",
            "headers": headers,
            "client": (self.client, 4711),
            "extensions": {"websocket.http.response": {}},
        }
        return WebSocket(scope, self.incoming.get, self.send)

    async def send(self, message: Any) -> None:
        """What the hub sends."""
        if self.stuck:
            await self.unstuck.wait()
        kind = message["type"]
        if kind == "websocket.http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            self.settled.set()
        elif kind == "websocket.accept":
            self.status = 101
        elif kind == "websocket.close":
            self.close_code = message["code"]
            self.close_reason = message.get("reason") or ""
            self.closed.set()
            self.settled.set()
            self.incoming.put_nowait({"type": "websocket.disconnect", "code": message["code"]})
        elif kind == "websocket.send" and not self.silent:
            self._answer(message["bytes"])

    def hang_up(self) -> None:
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})

    def _answer(self, frame: bytes) -> None:
        event = self.wire.receive(frame)
        if not isinstance(event, Requested):
            return
        self.asked.append(event.message.op)
        answer = self._result(event.message)
        data = self.wire.answer(event.seq_number, answer)
        self._tell(data)
        if isinstance(event.message, messages.StartCommand):
            self.was_started.set()
            if self.completes:
                self.complete(event.message.command_id)
        if isinstance(event.message, messages.SetWorkerSettings):
            self.settled.set()
        self.was_asked.set()

    def complete(self, command_id: str) -> None:
        """The command is over, and was tool_versions."""
        update = messages.Update(command_id, [[extension.TOOL_VERSIONS, self.tools], ["rc", 0]])
        for message in (update, messages.Complete(command_id)):
            self._tell(self.wire.request(message, object()))

    def _tell(self, frame: bytes) -> None:
        self.incoming.put_nowait({"type": "websocket.receive", "bytes": frame})

    def _result(self, message: messages.Message) -> Any:
        if not isinstance(message, messages.GetWorkerInfo):
            return None
        commands = {} if self.tools is None else {extension.TOOL_VERSIONS: "3.3"}
        info: dict[str, Any] = {"system": "posix", "basedir": "/w", "worker_commands": commands}
        info["version"] = self.version
        if self.boot_id is not None:
            report = AgentReport(
                self.boot_id, self.process, facts=dict(self.facts), clock_s=self.clock_s
            )
            info["hostler"] = report.body()
        return info
