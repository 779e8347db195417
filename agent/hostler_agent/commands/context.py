"""What a command is given of the agent: hostler_agent.commands.Context, as the daemon has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Optional

from hostler_agent.wire.messages import Message, Update

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from hostler_agent.commands import Settings
    from hostler_agent.commands.roster import Roster
    from hostler_agent.hub.outbox import Outbox
    from hostler_agent.jobs.containment import Containment
    from hostler_agent.wire.extension import CommandTerms


@dataclass(frozen=True)
class Reporting:
    """The way to the hub that all commands share."""

    outbox: Outbox
    roster: Roster
    ask: Callable[[Message], Awaitable[Any]]


@dataclass(frozen=True)
class CommandContext:
    """One command's. `workdir` is the agent's base directory; `terms` are our hub's."""

    command_id: str
    settings: Settings
    workdir: str
    terms: Optional[CommandTerms]
    containment: Containment
    reporting: Reporting

    @property
    def raw(self) -> bool:
        """Our hub takes bytes with offsets."""
        return self.terms is not None and self.terms.raw

    async def update(self, pairs: list[list[Any]]) -> None:
        """Queue name-value pairs for the hub; waits while too much is unacknowledged.

        Of a command that was forgotten nothing is sent. Raises LimitExceeded or ProtocolError for
        pairs that cannot be sent.
        """
        if not self.reporting.roster.is_live(self.command_id):
            return
        await self.reporting.outbox.put(Update(self.command_id, pairs))
        if not self.reporting.roster.is_live(self.command_id):  # forgotten while it waited
            self.reporting.outbox.discard(self.command_id)

    async def request(self, message: Message) -> Any:
        """Ask the hub for something else, at once and only once; raises WireError."""
        return await self.reporting.ask(message)
