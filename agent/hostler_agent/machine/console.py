"""Decodes the output of programs on Windows: UTF-8 from some, the console's code page from
others.
"""

from __future__ import annotations

import codecs

_MAX_HELD_BYTES = 8192


class ConsoleDecoder(codecs.IncrementalDecoder):
    """Decodes each line as UTF-8 if it is valid, else in the code page.

    Text in a code page that happens to be valid UTF-8 is hardly ever more than ASCII. Whole lines
    are decoded, because decoding a double-byte code page cannot begin in the middle of a character.
    """

    def __init__(self, code_page: str) -> None:
        super().__init__("replace")
        self._held = b""
        try:
            self._code_page = codecs.lookup(code_page).name
        except LookupError:
            # Python knows no such page, but on Windows it lets Windows decode.
            self._code_page = "oem"

    def decode(self, data: bytes, final: bool = False) -> str:  # type: ignore[override]
        # The base class takes any buffer; this one joins, so it wants bytes.
        data = self._held + data
        end = len(data) if final else _end_of_lines(data)
        if len(data) - end > _MAX_HELD_BYTES:
            end = len(data)
        self._held = data[end:]
        return "".join(self._line(line) for line in data[:end].splitlines(keepends=True))

    def _line(self, line: bytes) -> str:
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError:
            return line.decode(self._code_page, "replace")


def _end_of_lines(data: bytes) -> int:
    """The offset after the last line end; no code page has these bytes inside a character."""
    return max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
