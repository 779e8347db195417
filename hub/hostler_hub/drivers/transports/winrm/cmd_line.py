"""Builds a command line for Windows' cmd.exe, to which WinRM passes every command.

Within double quotes cmd.exe changes nothing but `%` and the quotes themselves. So arguments are put
into quotes, and an argument that cannot be quoted is refused; content that is not known beforehand
goes over standard input.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

LINE_CHARACTERS = 8000
"""The longest command line. cmd.exe takes 8191 characters, and WinRM adds some of its own."""

_PLAIN = re.compile(r"[A-Za-z0-9_./\\:=-]+")
_FORBIDDEN = re.compile(r'[%"\x00-\x1f\x7f]')


def join(argv: Sequence[str]) -> str:
    """Quote the arguments and join them into a line. Raises ValueError for an argument that cmd.exe
    would change, and for a line that is too long.
    """
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
