"""The byte strings that show a secret: the value itself, its lines and its usual encodings. Pure.

A tool seldom prints a secret as it got it: a debugger prints JSON, a client prints URLs and headers
in Base64. Each form is a byte string that is looked for in the output. Forms longer than
MAX_PIECE_BYTES are cut into pieces that cover them, so that little output has to be held back, and
a part of a long secret is found as well.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

MIN_BYTES = 4
"""Shorter strings are in every output; they cannot be looked for."""
MAX_PIECE_BYTES = 128
MAX_PIECES = 64
WRAPPED_AT = (64, 76)
"""The widths at which `openssl base64` and `base64` begin a new line."""


def forms(values: Iterable[bytes]) -> tuple[bytes, ...]:
    """All byte strings to look for, sorted, each of at least MIN_BYTES."""
    found: set[bytes] = set()
    for value in values:
        for form in _forms(value):
            found.update(_pieces(form))
    return tuple(sorted(form for form in found if len(form) >= MIN_BYTES))


def _forms(value: bytes) -> Iterator[bytes]:
    whole = value.strip(b"\r\n")
    for secret in {value, whole, whole + b"\n", whole.strip()}:
        yield from _base64_texts(secret)
    yield from _base64_within(whole)
    yield whole
    yield whole.replace(b"\n", b"\r\n")  # as a terminal writes it
    yield whole.hex().encode()
    yield whole.hex().upper().encode()
    yield from _quoted(whole)
    for line in whole.splitlines():
        yield from (line.strip(), *_quoted(line.strip()))


def _base64_texts(secret: bytes) -> Iterator[bytes]:
    """Base64 of exactly this secret, with and without padding, in one line and in several."""
    for text in (base64.b64encode(secret), base64.urlsafe_b64encode(secret)):
        yield text
        yield text.rstrip(b"=")
        for width in WRAPPED_AT:
            if len(text) > width:
                yield from (text[at : at + width] for at in range(0, len(text), width))


def _base64_within(secret: bytes) -> Iterator[bytes]:
    """The part of a longer Base64 text that depends on the secret alone, for each of the three
    places in a group of three bytes at which the secret may begin.
    """
    for before in range(3):
        text = base64.b64encode(bytes(before) + secret)
        first = (before * 8 + 5) // 6
        last = (before + len(secret)) * 8 // 6
        part = text[first:last]
        yield part
        yield part.translate(bytes.maketrans(b"+/", b"-_"))


def _quoted(secret: bytes) -> Iterator[bytes]:
    """The secret as it is written in URLs, JSON, HTML, and a shell's words."""
    for safe in ("", "/"):
        percent = quote(secret, safe=safe)
        yield percent.encode()
        yield _lower_percent(percent).encode()
    plus = quote_plus(secret)
    yield plus.encode()
    yield _lower_percent(plus).encode()
    yield secret.replace(b"'", b"'\\''")
    yield secret.replace(b"'", b"'\"'\"'")
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return
    for ascii_only in (True, False):
        yield json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode()
    yield html.escape(text).encode()
    yield html.escape(text, quote=False).encode()
    yield text.encode("utf-16-le")  # as PowerShell writes to files


def _lower_percent(text: str) -> str:
    """The same URL-encoded text with lower-case hexadecimal digits."""
    first, *rest = text.split("%")
    return "%".join([first, *(part[:2].lower() + part[2:] for part in rest)])


def _pieces(form: bytes) -> Iterator[bytes]:
    size = max(MAX_PIECE_BYTES, -(-len(form) // MAX_PIECES))
    yield from (form[at : at + size] for at in range(0, len(form) - size, size))
    yield form[-size:]
