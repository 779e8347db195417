"""The interface that the agent provides to its commands, as protocols."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional, Protocol

from hostler_agent.commands.masking import Mask
from hostler_agent.commands.slots.contract import Slots
from hostler_agent.jobs.containment import Containment
from hostler_agent.wire.extension import CommandTerms


@dataclass(frozen=True)
class Settings:
    """The settings from the hub's set_worker_settings. The defaults are those of a stock worker."""

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
        """The agent's base directory, an absolute path."""

    @property
    def raw(self) -> bool:
        """Whether output goes as bytes with offsets (Hostler hub) or as content lists (stock
        masters).
        """

    @property
    def terms(self) -> Optional[CommandTerms]:
        """The Hostler hub's terms for this command; None from a stock master."""

    @property
    def mask(self) -> Optional[Mask]:
        """What masks the secrets in the command's output; None if it can show none."""

    @property
    def containment(self) -> Containment: ...
    @property
    def slots(self) -> Slots:
        """The agent's slots."""

    @property
    def slot_key(self) -> Optional[str]:
        """The key of the slot that the command runs in; None for the agent's own."""

    async def update(self, pairs: list[list[Any]]) -> None:
        """Queue an `update`; waits while too much is unacknowledged."""

    async def request(self, message: Any) -> Any:
        """Send a request of wire.messages and return the result of its answer. Raises WireError."""
