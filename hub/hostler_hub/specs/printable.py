"""Texts that come from others, made harmless for a terminal and for who reads them.

Agents, builds and providers choose texts that people see in playbooks, mails, pages and the hub's
log. A control character in one could move the cursor, rewrite the line above or retitle the window,
and a bidirectional override could show the words in another order.
"""

from __future__ import annotations

import re

# Control characters (Unicode's category Cc: C0, DEL and C1) but tab and line feed, and the
# characters that change the direction of text (UAX #9).
_HARMFUL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_OF_LINES = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def escape_controls(text: str) -> str:
    """The text with each control character written as its code, such as ``\\x1b``. Line feeds and
    tabs stay; a carriage return before a line feed is dropped.
    """
    if text.isprintable():
        return text
    return _HARMFUL.sub(_escaped, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The same for a text that has one line, such as a name: line feeds and tabs are written as
    their codes, too.
    """
    return text if text.isprintable() else _OF_LINES.sub(_escaped, text)


def escape_json(document: str) -> str:
    """A JSON document in which those characters are escapes of JSON: a reader has the same texts as
    before. The characters below U+0020 are escaped in every JSON document.
    """
    if document.isascii() and "\x7f" not in document:
        return document
    return _HARMFUL.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
