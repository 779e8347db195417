"""The line by which the login shell of an account, whichever it is, runs a command unchanged.

The line itself is the same for every command: quoted once, without a slash, a line break, a
backslash or an exclamation mark, so that sh, bash, zsh, fish, csh and a restricted shell read it
alike. It starts a POSIX shell, which takes the command from the first line of standard input.
There it first prints a mark. What stands before that comes from the account's start-up files; and
where there is no mark, the command was never started.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

BOOTSTRAP = "sh -c 'IFS= read -r l; eval \"$l\"'"


@dataclass(frozen=True)
class CommandLine:
    """A command as it goes over the connection."""

    argv: Sequence[str]
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def input(self) -> bytes:
        """What precedes the command's own standard input."""
        words = " ".join(map(_quoted, self.argv))
        line = f"n=$(printf '\\n_'); n=${{n%_}}; printf '\\n%s\\n' '{self._mark}'; exec {words}\n"
        return line.encode("utf-8", "surrogateescape")

    def output(self, stdout: bytes) -> bytes | None:
        """The command's own standard output; None if it was never started."""
        _, mark, own = stdout.partition(f"\n{self._mark}\n".encode())
        return own if mark else None

    @property
    def _mark(self) -> str:
        return f"@hostler-begin {self.nonce}"


def _quoted(word: str) -> str:
    """The word in quotes of a POSIX shell, without line breaks; $n holds one."""
    word = word.replace("'", "'\"'\"'").replace("\n", "'\"$n\"'")
    return f"'{word}'"
