"""The base class of commands."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Optional

from hostler_agent.clock import Clock, SystemClock
from hostler_agent.commands.arguments import Arguments
from hostler_agent.commands.output import CommandOutput
from hostler_agent.commands.protocols import Context


class Command:
    """One command. run() is called once; interrupt() may be called at any time and more
    than once.
    """

    name: ClassVar[str]

    def __init__(
        self, context: Context, args: dict[str, Any], clock: Optional[Clock] = None
    ) -> None:
        self.context = context
        self.arguments = Arguments(self.name, args, context.workdir)
        self.clock = clock or SystemClock()
        self.output = CommandOutput(context, self.clock)

    async def run(self) -> None:
        """Run the command and send all its updates. Raises CommandError if it could not be
        attempted.
        """
        begun = self.clock.awake()
        try:
            await self.execute()
            await self.output.pair("elapsed", int(self.clock.awake() - begun))
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
        """End the command early; it still completes."""
        raise NotImplementedError
