"""Base of the commands that transfer files."""

from __future__ import annotations

import asyncio
from typing import Any, Optional

from hostler_agent.commands.base import Command
from hostler_agent.commands.errors import TransferFailed
from hostler_agent.wire.errors import WireError

MAX_FILE_BYTES = 1024**3
# A message to the hub is below 1 MiB; one from the hub could be larger, but gains nothing by it.
MAX_BLOCK_BYTES = 512 * 1024
DEFAULT_BLOCK_BYTES = 64 * 1024


class Transfer(Command):
    """Base of uploads and downloads. A transfer that fails ends with `rc` 1 and a line on stderr,
    as in stock workers.
    """

    _interrupted: Optional[str] = None
    _task: Optional[asyncio.Task[None]] = None

    async def transfer(self) -> None:
        """Transfer the file. Raises TransferFailed, WireError or OSError."""
        raise NotImplementedError

    async def execute(self) -> None:
        self.block_bytes()
        try:
            await self.transfer()
        except TransferFailed as error:
            await self._end(1, str(error))
        except WireError as error:
            await self._end(1, f"{self.name}: the hub refused it: {error}")
        except OSError as error:
            await self._end(1, f"{self.name}: {error}")
        else:
            await self._end(0, None)

    def interrupt(self, why: str) -> None:
        self._interrupted = why

    def block_bytes(self) -> int:
        block_bytes = self.arguments.whole("blocksize", DEFAULT_BLOCK_BYTES)
        return max(1, min(block_bytes or DEFAULT_BLOCK_BYTES, MAX_BLOCK_BYTES))

    async def request(self, message: Any) -> Any:
        """Send a request and return the answer's result. An interrupt takes effect between two
        requests.
        """
        answer = await self.context.request(message)
        if self._interrupted is not None:
            why, self._interrupted = self._interrupted, None
            raise TransferFailed(f"{self.name}: interrupted: {why}")
        return answer

    async def _end(self, code: int, why: Optional[str]) -> None:
        if why is not None:
            await self.output.say("stderr", why + "\n")
        await self.output.pair("rc", code)
