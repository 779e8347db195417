"""A parser for tar streams that does no I/O: bytes in, members and their data out.

Python's own tarfile reads an extension header of any size into memory, and has had a hang and
five ways to escape its filter (U3). So streams from workers are parsed here: POSIX ustar and
pax (what Python and GNU tar write) and GNU long names, nothing else. Regular files and
directories are members; links, devices and sparse files are refused by name. An extension
header has at most HEADER_SIZE_BYTES.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hostler_hub.builds.errors import BadArchive

BLOCK_BYTES = 512
HEADER_SIZE_BYTES = 64 * 1024
LAST_INSTANT = 2.0**33

_FILES = frozenset({b"0", b"\0", b"7"})
_DIRECTORY = b"5"
_PAX, _PAX_GLOBAL = b"x", b"g"
_GNU_NAME = b"L"
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a pipe",
    b"K": "a link with a long name",
    b"S": "a sparse file",
}


@dataclass(frozen=True, slots=True)
class Member:
    """The header of a member. Its data, `size_bytes` in all, follows as bytes."""

    name: str
    is_directory: bool
    size_bytes: int
    modified_at: float


Event = Member | bytes


class TarParser:
    """Call feed() with pieces of any size, then close(), which checks that nothing is missing."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._data_left = 0
        self._ended = False
        self._name: str | None = None
        self._pax: dict[str, str] = {}
        self._expect(BLOCK_BYTES, self._header)

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield the members that these bytes complete, and the data of files as it
        comes. Raises BadArchive.
        """
        self._buffer += data
        while not self._ended and self._buffer:
            if self._data_left:
                piece = self._take(min(self._data_left, len(self._buffer)))
                self._data_left -= len(piece)
                yield piece
            elif len(self._buffer) >= self._needed:
                yield from self._next(self._take(self._needed))
            else:
                return
        self._buffer.clear()  # after the end comes padding, of no meaning

    def close(self) -> None:
        """Raise BadArchive if the archive's end has not come."""
        if not self._ended:
            raise BadArchive("the archive is cut off")

    def _take(self, size_bytes: int) -> bytes:
        taken = bytes(self._buffer[:size_bytes])
        del self._buffer[:size_bytes]
        return taken

    def _expect(self, size_bytes: int, then: Callable[[bytes], Iterator[Event]]) -> None:
        self._needed, self._next = size_bytes, then

    # --- one block each -------------------------------------------------------------------------

    def _header(self, block: bytes) -> Iterator[Event]:
        if not any(block):
            self._ended = True
            return
        if _number(block[148:156]) != _checksum(block):
            raise BadArchive("it is no tar archive, or a damaged one")
        kind, size = block[156:157], _number(block[124:136])
        if kind in (_PAX, _PAX_GLOBAL, _GNU_NAME):
            if not 0 < size <= HEADER_SIZE_BYTES:
                raise BadArchive(f"an extended header of {size} bytes")
            self._expect(_whole(size), functools.partial(self._extension, kind, size))
            return
        yield self._member(kind, size, block)

    def _extension(self, kind: bytes, size: int, blocks: bytes) -> Iterator[Event]:
        content = blocks[:size]
        if kind == _PAX:
            self._pax.update(_records(content))
        elif kind == _GNU_NAME:
            self._name = _text(content.rstrip(b"\0"))
        self._expect(BLOCK_BYTES, self._header)
        yield from ()

    def _padding(self, _: bytes) -> Iterator[Event]:
        self._expect(BLOCK_BYTES, self._header)
        yield from ()

    def _member(self, kind: bytes, size: int, block: bytes) -> Member:
        pax, self._pax = self._pax, {}
        name = pax.get("path") or self._name or _name(block)
        self._name = None
        if any(key.startswith("GNU.sparse") for key in pax):
            kind = b"S"
        is_directory = kind == _DIRECTORY or (kind in _FILES and name.endswith("/"))
        if kind not in _FILES and not is_directory:
            what = _KINDS.get(kind, f"of an unknown kind {kind!r}")
            raise BadArchive(f"{name[:200]!r} is {what}; only files and directories are taken")
        if "size" in pax:
            size = _decimal(pax["size"])
        if is_directory and size:
            raise BadArchive(f"{name[:200]!r} is a directory with data")
        self._data_left = size
        padding = _whole(size) - size
        self._expect(padding or BLOCK_BYTES, self._padding if padding else self._header)
        return Member(name, is_directory, size, _instant(pax.get("mtime"), block))


def _whole(size_bytes: int) -> int:
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


def _checksum(block: bytes) -> int:
    # The checksum's own field counts as spaces.
    return sum(block) - sum(block[148:156]) + 8 * ord(" ")


def _number(field: bytes) -> int:
    """The number in a header field: octal digits, or GNU's base 256 if the first bit is
    set. Raises BadArchive.
    """
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise BadArchive("a negative number")
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    if digits and not all(digit in b"01234567" for digit in digits):
        raise BadArchive("it is no tar archive, or a damaged one")
    return int(digits or b"0", 8)


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise BadArchive("an extended header with a size that is no number")
    return int(text)


def _name(block: bytes) -> str:
    name = _text(block[:100].partition(b"\0")[0])
    prefix = _text(block[345:500].partition(b"\0")[0])
    return f"{prefix}/{name}" if prefix and block[257:263] == b"ustar\0" else name


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _instant(text: str | None, block: bytes) -> float:
    try:
        at = float(text) if text is not None else float(_number(block[136:148]))
    except ValueError:
        raise BadArchive("an extended header with a time that is no number") from None
    return at if 0 <= at < LAST_INSTANT else 0.0


def _records(content: bytes) -> Iterator[tuple[str, str]]:
    """Pax records: "LENGTH KEY=VALUE\\n", the length being the whole record's."""
    while content:
        digits, space, _ = content[:8].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        key, equals, value = content[len(digits) + 1 : length].partition(b"=")
        if not equals or not value.endswith(b"\n") or length > len(content):
            raise BadArchive("an extended header that cannot be read")
        yield _text(key), _text(value[:-1])
        content = content[length:]
