"""Buildbot's content lists: how output travels to and from a stock peer.

A value of `stdout`, `stderr`, `header` or `log` is `[text, positions, times]`: text of whole lines,
the index of each newline in it, and when the first character of each line arrived (seconds since
1970). Whatever the settings' `newline_re` matches has become a newline, and lines are cut so that
none is longer than `max_line_length` characters with its newline. A line that is not finished yet
stays here until it is, or until flush(); so does a sequence that `newline_re` has
seen only half of.

This form is for stock peers: it changes the bytes. Our own hub gets them raw.
"""

from __future__ import annotations

import codecs
import re
from itertools import accumulate, count
from operator import add
from typing import Any, Optional

from hostler_agent.wire.errors import ProtocolError

Content = list[Any]
"""A content list: `[text, positions, times]`."""

BUILDBOTS_NEWLINE_RE = r"(\r\n|\r(?=.)|\033\[u|\033\[[0-9]+;[0-9]+[Hf]|\033\[2J|\x08+)"
"""The `newline_re` that a stock master sends."""

# The same, so written that `re` looks for a match only where one of three characters is: it knows
# the first character of literals, not of a repeat.
_BUILDBOTS_NEWLINE = re.compile(BUILDBOTS_NEWLINE_RE.replace(r"\x08+", r"\x08\x08*"))
_BUILDBOTS_NEWLINES_BEGIN = ("\r", "\033", "\x08")


class LineSplitter:
    """Cuts one stream into content lists. Bytes that are not UTF-8 become U+FFFD, unless another
    `decoder` is given.
    """

    def __init__(
        self,
        max_line_length: int,
        newline_re: str,
        decoder: Optional[codecs.IncrementalDecoder] = None,
    ) -> None:
        """Raises ProtocolError if `newline_re` is not a regular expression."""
        self._begins: tuple[str, ...] = ("",)
        try:
            if newline_re == BUILDBOTS_NEWLINE_RE:
                self._newline, self._begins = _BUILDBOTS_NEWLINE, _BUILDBOTS_NEWLINES_BEGIN
            else:
                self._newline = re.compile(newline_re)
        except (re.error, RecursionError, OverflowError) as error:
            raise ProtocolError(f"newline_re is not a regular expression: {error}") from error
        # At least one character of each line must be text, or cutting would never end.
        self._room = max(max_line_length, 2) - 1
        self._decoder = decoder or codecs.getincrementaldecoder("utf-8")("replace")
        self._partial = ""
        self._partial_since = 0.0

    def feed(self, data: bytes | str, at: float) -> Optional[Content]:
        """Add `data`, which arrived at `at` (seconds since 1970). Returns the lines that it
        completes, or None.
        """
        if isinstance(data, str):
            # Names of files may hold lone surrogates, which no peer could decode.
            data = data.encode("utf-8", "replace")
        return self._append(self._decoder.decode(data), at)

    def flush(self, at: float) -> Optional[Content]:
        """Return the unfinished rest as a line, or None. Called at the end of the stream."""
        content = self._append(self._decoder.decode(b"", final=True), at)
        if not self._partial:
            return content
        rest = self._append("\n", at)
        return rest if content is None or rest is None else join(content, rest)

    def _append(self, text: str, at: float) -> Optional[Content]:
        if not self._partial:
            self._partial_since = at
        text = self._partial + text
        if any(begin in text for begin in self._begins):
            text = self._newline.sub("\n", text)
        end = text.rfind("\n") + 1
        lines, partial = text[:end].split("\n"), text[end:]
        lengths = list(map(len, lines))
        if max(lengths) > self._room or len(partial) > self._room:
            lines.pop()  # behind the last newline there is nothing
            lines = [piece for line in lines for piece in self._cut(line)]
            while len(partial) > self._room:
                lines.append(partial[: self._room])
                partial = partial[self._room :]
            text, lengths = "\n".join([*lines, ""]), [*map(len, lines), 0]
            end = len(text)
        self._partial = partial
        if not end:
            return None
        lengths.pop()
        times = [at] * len(lengths)
        times[0], self._partial_since = self._partial_since, at
        # A line's newline comes after all text up to it, and after the newlines before.
        return [text[:end], list(map(add, accumulate(lengths), count())), times]

    def _cut(self, line: str) -> list[str]:
        pieces = [line[at : at + self._room] for at in range(0, len(line), self._room)]
        return pieces or [""]


def join(first: Content, second: Content) -> Content:
    """Append the second of two consecutive content lists of a stream to `first`, and
    return that.
    """
    offset = len(first[0])
    first[0] += second[0]
    first[1] += [offset + position for position in second[1]]
    first[2] += second[2]
    return first


def text_bytes(value: Any) -> bytes:
    """The UTF-8 of a content list's text. Raises ProtocolError.

    Positions and times are not needed for that, and stock peers do not always count them alike.
    """
    if not (isinstance(value, (list, tuple)) and len(value) == 3 and isinstance(value[0], str)):
        raise ProtocolError("content must be a list of text, positions and times")
    return value[0].encode("utf-8", "replace")
