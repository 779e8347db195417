"""The agent's WebSocket: a connection of the library websockets that can send several frames at
once.
"""

from __future__ import annotations

from collections.abc import Sequence

from websockets.asyncio.client import ClientConnection


class HubWebSocket(ClientConnection):
    async def send_all(self, frames: Sequence[bytes]) -> None:
        """Send frames in one write; a write for each would wake the hub each time.

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
