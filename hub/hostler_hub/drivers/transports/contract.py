"""What a transport is: commands and files on another machine, each with a limit and a deadline.

A transport keeps nothing but connections, which it opens when they are needed and again when they
were lost. Every call ends within its deadline, whatever the machine or the network does; what it
raises says whether the command may have run, for only what was never sent is surely not done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

OUTPUT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command came to."""

    status: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Command:
    """`argv` is never put together by a shell of ours; secrets stand in `content` only, which is
    the command's standard input. `sending` is called just before it may reach the machine.
    """

    argv: Sequence[str]
    content: bytes = b""
    deadline_s: float = 30.0
    output_bytes: int = OUTPUT_BYTES
    sending: Callable[[], None] | None = None


class Transport(Protocol):
    """One machine, as one user. All methods raise TransportError."""

    async def run(self, command: Command) -> Outcome:
        """Run it to its end; a status other than 0 is no error."""

    async def put(self, path: str, content: bytes, deadline_s: float) -> None:
        """Make a file, readable by its owner only; replaces none."""

    async def fetch(self, path: str, size_bytes: int, deadline_s: float) -> bytes:
        """A file's content, of that size at most."""

    async def aclose(self) -> None:
        """Close the connection; a command that runs is lost."""
