"""`end_lease`: removes whatever is left of a build, so that its slot can be used again (V10)."""

from __future__ import annotations

from typing import Optional

from hostler_agent.commands.base import Command
from hostler_agent.commands.errors import CommandError
from hostler_agent.wire.extension import END_LEASE

MAX_NAMED = 10


class EndLease(Command):
    """Arguments: `paths`, the build's directories; the lease is in the hub's terms. Fails with a
    text that names what could not be removed. It is not interrupted: it has deadlines of its own.
    """

    name = END_LEASE

    @property
    def slot_key(self) -> Optional[str]:
        """The agent's own: the lease's slot is what ends."""
        return None

    async def execute(self) -> None:
        paths, terms = self.arguments.paths("paths"), self.context.terms
        if terms is None:
            raise CommandError(f"{self.name}: there is no lease in the command's terms")
        left = await self.context.slots.end(terms.lease, paths)
        if left:
            more = "" if len(left) <= MAX_NAMED else f" and {len(left) - MAX_NAMED} more"
            raise CommandError(f"of the build remains: {', '.join(left[:MAX_NAMED])}{more}")
        await self.output.pair("rc", 0)

    def interrupt(self, why: str) -> None:
        """Do nothing: what is left must go."""
