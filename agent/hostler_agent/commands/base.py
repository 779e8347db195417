"""What every command has: its context, given by the daemon, and its way to report."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar, Optional, Protocol

from hostler_agent.commands.arguments import Arguments
from hostler_agent.commands.output import Output
from hostler_agent.jobs.clock import Clock, SystemClock
from hostler_agent.jobs.containment import Containment
from hostler_agent.wire.extension import CommandTerms


@dataclass(frozen=True)
class Settings:
    """As the hub sets them (set_worker_settings); until it does, as stock workers have them."""

    newline_re: str = r"(\r\n|\r(?=.)|\033\[u|\033\[[0-9]+;[0-9]+[Hf]|\033\[2J|\x08+)"
    max_line_length: int = 4096
    buffer_size: int = 64 * 1024
    buffer_timeout: float = 5.0


class Context(Protocol):
    @property
    def command_id(self) -> str: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def workdir(self) -> str:
        """The agent's base directory; absolute."""

    @property
    def raw(self) -> bool:
        """Output goes as bytes with offsets (our hub), not as content lists (stock masters)."""

    @property
    def terms(self) -> Optional[CommandTerms]:
        """Our hub's for this command; None from a stock master."""

    @property
    def containment(self) -> Containment: ...
    async def update(self, pairs: list[list[Any]]) -> None:
        """Queues an `update`; waits while too much is unacknowledged."""

    async def request(self, message: Any) -> Any:
        """Sends one of wire.messages, returns the answer's result; raises WireError."""


class Command:
    """One command. run() is called once; interrupt() at any time, and more than once."""

    name: ClassVar[str]

    def __init__(
        self, context: Context, args: dict[str, Any], clock: Optional[Clock] = None
    ) -> None:
        self.context = context
        self.arguments = Arguments(self.name, args, context.workdir)
        self.clock = clock or SystemClock()
        self.output = Output(context, self.clock)

    async def run(self) -> None:
        """Sends all updates of the command. Raises CommandError when it could not be tried."""
        begun = self.clock.monotonic()
        try:
            await self.execute()
            await self.output.pair("elapsed", int(self.clock.monotonic() - begun))
        except asyncio.CancelledError:
            self.output.abandon()
            raise
        except BaseException:
            await self.output.aclose()
            raise
        await self.output.aclose()

    async def execute(self) -> None:
        raise NotImplementedError

    def interrupt(self, why: str) -> None:
        """Ends the command early; it still completes."""
        raise NotImplementedError
