"""The agent's WebSocket: one of websockets' connections, and one method more."""

from __future__ import annotations

from collections.abc import Sequence

from websockets.asyncio.client import ClientConnection


class HubWebSocket(ClientConnection):
    async def send_all(self, frames: Sequence[bytes]) -> None:
        """Like send() for each, but in one piece: every write of its own would wake the hub.

        Raises ConnectionClosed.
        """
        if len(frames) == 1:
            await self.send(frames[0])
            return
        async with self.send_context():
            for frame in frames:
                self.protocol.send_binary(frame)
            # What the library would else write to the socket one by one.
            self.protocol.writes = [b"".join(self.protocol.writes)]
