"""A fake agent: it attaches as a real one does, runs nothing, and answers every command at once."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from hostler_agent.wire import extension, messages
from hostler_agent.wire.extension import AgentReport, Handshake, Receipt
from hostler_agent.wire.session import Requested, Role, Session
from hostler_hub.drivers.contract import InstanceSpec

RECONNECT_S = 0.5


class FakeAgent:
    """One in-process agent; ``answered`` counts the commands it has completed."""

    def __init__(self, url: str, spec: InstanceSpec, boot_s: float = 0.0) -> None:
        self._url = url
        self._handshake = Handshake(
            spec.worker, spec.token, secrets.token_urlsafe(32), spec.instance, spec.epoch
        )
        self._boot_s = boot_s
        self._process = secrets.token_hex(8)
        self._task: asyncio.Task[None] | None = None
        self.answered = 0

    def start(self) -> None:
        self._task = asyncio.create_task(self._live(), name=f"fake agent {self._handshake.name}")

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def aclose(self) -> None:
        self.stop()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _live(self) -> None:
        await asyncio.sleep(self._boot_s)
        while True:
            with contextlib.suppress(OSError, WebSocketException):
                if await self._attend():
                    return
            await asyncio.sleep(RECONNECT_S)

    async def _attend(self) -> bool:
        """Serve one connection until it ends. Returns True if the hub ordered the agent
        to go away.
        """
        headers = self._handshake.headers()
        try:
            connection = await connect(
                self._url, additional_headers=headers, compression=None, proxy=None
            )
        except InvalidHandshake as error:
            response = getattr(error, "response", None)
            return response is not None and response.status_code == 410
        async with connection:
            session = Session(Role.AGENT)
            async for frame in connection:
                event = session.receive(frame if isinstance(frame, bytes) else frame.encode())
                if isinstance(event, Requested) and await self._serve(connection, session, event):
                    return True
        return connection.close_code == 4410

    async def _serve(
        self, connection: ClientConnection, session: Session, event: Requested
    ) -> bool:
        message = event.message
        result = self._info() if isinstance(message, messages.GetWorkerInfo) else None
        await connection.send(session.answer(event.seq_number, result))
        if isinstance(message, messages.StartCommand):
            for frame in self._complete(session, message.command_id):
                await connection.send(frame)
        return isinstance(message, messages.Shutdown)

    def _complete(self, session: Session, command_id: str) -> list[bytes]:
        self.answered += 1
        receipt = Receipt("exited", 0, "none").pair()
        update = messages.Update(command_id, [receipt, ["rc", 0], ["elapsed", 0]])
        over = messages.Complete(command_id)
        return [session.request(update, object()), session.request(over, object())]

    def _info(self) -> dict[str, Any]:
        report = AgentReport(boot_id=None, process=self._process, facts={"fake": True})
        return {
            "environ": {},
            "system": "posix",
            "basedir": "/nowhere",
            "numcpus": 1,
            "version": "fake",
            "worker_commands": {"shell": "1", "rmdir": "1", "hostler": str(extension.VERSION)},
            "delete_leftover_dirs": False,
            "hostler": report.body(),
        }
