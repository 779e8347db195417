"""A command line for Windows' cmd.exe, which WinRM hands every command to.

Inside of double quotes cmd.exe leaves everything alone but `%` and the quotes themselves; so
arguments are put into quotes, and what cannot stand there is refused: what is not known
beforehand goes over standard input.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

LINE_CHARACTERS = 8000
"""cmd.exe takes 8191, and WinRM puts its own words before them."""

_PLAIN = re.compile(r"[A-Za-z0-9_./\\:=-]+")
_FORBIDDEN = re.compile(r'[%"\x00-\x1f\x7f]')


def join(argv: Sequence[str]) -> str:
    """The line; raises ValueError for what cmd.exe would read as something else."""
    line = " ".join(_quote(each) for each in argv)
    if len(line) > LINE_CHARACTERS:
        raise ValueError(f"the command line has {len(line)} characters, of {LINE_CHARACTERS}")
    # A line that begins with a quote loses it, and its last one; `@` is only "do not echo".
    return f"@{line}" if line.startswith('"') else line


def _quote(argument: str) -> str:
    if _FORBIDDEN.search(argument):
        raise ValueError(f"cmd.exe would change the argument {argument!r}")
    if _PLAIN.fullmatch(argument):
        return argument
    # Before a quote, the program's own parser halves backslashes.
    tail = len(argument) - len(argument.rstrip("\\"))
    return f'"{argument}{chr(92) * tail}"'
