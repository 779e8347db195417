"""The base class of commands."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, ClassVar, Optional

from hostler_agent.clock import Clock, SystemClock
from hostler_agent.commands.arguments import Arguments
from hostler_agent.commands.errors import CommandError
from hostler_agent.commands.output import CommandOutput
from hostler_agent.commands.protocols import Context
from hostler_agent.commands.slots.contract import Slot
from hostler_agent.jobs.errors import JobError


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
        self._slot: Optional[Slot] = None

    @property
    def slot(self) -> Slot:
        """The slot that the command runs in, from run() on."""
        assert self._slot is not None
        return self._slot

    @property
    def slot_key(self) -> Optional[str]:
        """The key of that slot; see Slots.use."""
        return self.context.slot_key

    async def run(self) -> None:
        """Run the command and send all its updates. Raises CommandError if it could not be
        attempted.
        """
        begun = self.clock.awake()
        try:
            async with contextlib.AsyncExitStack() as stack:
                self._slot = await self._occupy(stack)
                await self.execute()
            await self.output.pair("elapsed", int(self.clock.awake() - begun))
        except asyncio.CancelledError:
            self.output.abandon()
            raise
        except BaseException:
            await self.output.aclose()
            raise
        await self.output.aclose()

    async def _occupy(self, stack: contextlib.AsyncExitStack) -> Slot:
        try:
            return await stack.enter_async_context(self.context.slots.use(self.slot_key))
        except (JobError, OSError) as error:
            raise CommandError(f"{self.name}: {error}") from error

    async def execute(self) -> None:
        raise NotImplementedError

    def interrupt(self, why: str) -> None:
        """End the command early; it still completes."""
        raise NotImplementedError
