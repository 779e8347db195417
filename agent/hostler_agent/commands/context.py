"""The context of a command, `commands.protocols.Context`, as the daemon implements it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Optional

from hostler_agent.wire.messages import Message, Update

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from hostler_agent.commands import Settings
    from hostler_agent.commands.masking import Mask
    from hostler_agent.commands.roster import Roster
    from hostler_agent.commands.slots import Slots
    from hostler_agent.hub.outbox import Outbox
    from hostler_agent.jobs.containment import Containment
    from hostler_agent.wire.extension import CommandTerms


@dataclass(frozen=True)
class Reporting:
    """The objects through which commands report to the hub; shared by all commands."""

    outbox: Outbox
    roster: Roster
    ask: Callable[[Message], Awaitable[Any]]


@dataclass(frozen=True)
class CommandContext:
    """The context of one command. `workdir` is the agent's base directory; `terms` are the Hostler
    hub's; `slot_key` is that of the slot that it runs in, see commands.slots.
    """

    command_id: str
    settings: Settings
    workdir: str
    terms: Optional[CommandTerms]
    containment: Containment
    reporting: Reporting
    slots: Slots
    slot_key: Optional[str]
    mask: Optional[Mask] = None

    @property
    def raw(self) -> bool:
        """Whether output goes as bytes with offsets, which a Hostler hub takes."""
        return self.terms is not None and self.terms.raw

    async def update(self, pairs: list[list[Any]]) -> None:
        """Queue name-value pairs for the hub; waits while too much is unacknowledged.

        Nothing is sent for a command that was forgotten. Raises LimitExceeded or ProtocolError if
        the pairs cannot be sent.
        """
        if not self.reporting.roster.is_live(self.command_id):
            return
        await self.reporting.outbox.put(Update(self.command_id, pairs))
        if not self.reporting.roster.is_live(self.command_id):  # forgotten while it waited
            self.reporting.outbox.discard(self.command_id)

    async def request(self, message: Message) -> Any:
        """Send another request to the hub, once and without queueing. Raises WireError."""
        return await self.reporting.ask(message)


def builder_key(workdir: str, args: Mapping[str, Any]) -> str:
    """The key of the slot that a stock master's command runs in. Such a master knows no leases: a
    builder, which has a directory of its own in the base directory, has a slot for as long as the
    agent lives.
    """
    for name in ("workdir", "path", "from_path", "paths"):
        value = args.get(name)
        path = value[0] if isinstance(value, (list, tuple)) and value else value
        if isinstance(path, str) and path:
            below = os.path.relpath(os.path.join(workdir, path), workdir)  # noqa: PTH118
            return below.partition("/")[0]
    return "."
