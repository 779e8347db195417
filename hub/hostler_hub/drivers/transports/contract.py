"""The interface of a transport: commands and files on another machine, with size limits and
deadlines.

A transport keeps nothing but connections, which it opens when they are needed and reopens when they
were lost. Every call ends within its deadline, whatever the machine or the network does. Its
exceptions say whether the command may have run: only a command that was never sent is known not to
have run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

OUTPUT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class CommandResult:
    """A command's exit status and output."""

    status: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Command:
    """A command for a machine. `argv` reaches the program unchanged. `content` is its standard
    input, and the only part that may hold secrets. `output_bytes` limits the size of its output.
    `sending` is called just before the command may reach the machine.
    """

    argv: Sequence[str]
    content: bytes = b""
    deadline_s: float = 30.0
    output_bytes: int = OUTPUT_BYTES
    sending: Callable[[], None] | None = None


class Transport(Protocol):
    """One machine, as one user. All methods raise TransportError."""

    async def run(self, command: Command) -> CommandResult:
        """Run a command to its end. An exit status other than 0 is not an error."""

    async def put(self, path: str, content: bytes, deadline_s: float) -> None:
        """Create a file that only its owner can read. Raises Refused if the file exists."""

    async def fetch(self, path: str, size_bytes: int, deadline_s: float) -> bytes:
        """Read a file of at most `size_bytes`."""

    async def aclose(self) -> None:
        """Close the connection. A running command is lost."""
