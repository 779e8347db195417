"""Encodes and decodes frames: one WebSocket message is one MessagePack map.

The peer is not trusted, and a few bytes of MessagePack can ask for a lot of memory: `[[[[…` nests,
an array header of five bytes announces four billion items, and a million empty lists fit into a
mebibyte. So the lengths are capped from the frame's size, containers are counted *while* they are
decoded (a hook that raises stops the decoder), and the depth is checked before any recursion.
Each frame gets a decoder of its own: one that failed must not be used again (GHSA-6v7p-g79w-8964).
Extension types are refused: we have no use for them, and a timestamp is one. So are numbers that
JSON or a database cannot hold: what one peer says must not break a list that others ask for.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, Optional

import msgpack

from hostler_agent.wire.errors import LimitExceeded, ProtocolError, ValueRefused

if TYPE_CHECKING:
    from hostler_agent.wire.limits import MessageLimits

_INTEGERS = 2**63


def encode(message: dict[str, Any]) -> bytes:
    """Encode `message` as a frame. Raises ProtocolError for a value that MessagePack
    cannot carry.
    """
    try:
        frame: bytes = msgpack.packb(message, use_bin_type=True)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ProtocolError(f"message cannot be encoded: {error}") from error
    return frame


def joined(head: dict[str, Any], body: bytes) -> bytes:
    """Encode `head` and join it with `body`, a map that is already encoded, into one frame. The two
    maps must have different keys, together at most 15. Raises ProtocolError.
    """
    front = encode(head)
    keys = (front[0] & 0x0F) + (body[0] & 0x0F)
    if front[0] & 0xF0 != 0x80 or body[0] & 0xF0 != 0x80 or keys > 15:
        raise ProtocolError("only maps of together up to 15 keys can be joined")
    return b"".join((bytes((0x80 | keys,)), front[1:], memoryview(body)[1:]))


def decode(frame: bytes, limits: MessageLimits) -> dict[str, Any]:
    """Decode the map in `frame`. Raises LimitExceeded if it is too big, ProtocolError if it is not
    one, ValueRefused, with the map, if it holds a number that cannot be stored.
    """
    size = len(frame)
    if size > limits.message_size_bytes:
        raise LimitExceeded(
            f"message of {size} bytes is over the limit of {limits.message_size_bytes}"
        )
    message = _unpack(frame, limits)
    if not isinstance(message, dict):
        raise ProtocolError(f"message is a {type(message).__name__}, not a map")
    if (refusal := _checked(message, limits.depth)) is not None:
        raise ValueRefused(refusal, message)
    return message


class _Census:
    """Counts the items of one frame as its containers are completed."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items = 0

    def __call__(self, container: Any) -> Any:
        self._items += len(container)
        # Empty containers hold no item but cost more than any: each counts as one.
        self._items += not container
        if self._items > self._limit:
            raise LimitExceeded(f"message has more than {self._limit} items")
        return container


def _refuse_extension(code: int, data: bytes) -> Any:
    raise ProtocolError(f"message has an extension type ({code}, {len(data)} bytes)")


def _unpack(frame: bytes, limits: MessageLimits) -> Any:
    census = _Census(limits.items)
    size = len(frame)
    try:
        return msgpack.unpackb(
            frame,
            raw=False,
            strict_map_key=True,
            object_hook=census,
            list_hook=census,
            ext_hook=_refuse_extension,
            timestamp=0,  # timestamps never reach ext_hook: keep msgpack's type, refused below
            max_str_len=size,
            max_bin_len=size,
            max_array_len=min(size, limits.items),
            max_map_len=min(size, limits.items),
            max_ext_len=size,
        )
    except (LimitExceeded, ProtocolError):
        raise
    except (
        msgpack.UnpackException,
        ValueError,  # truncated, trailing bytes, bad UTF-8, a key that is a number, over max_*_len
        TypeError,  # a key that is a container
        RecursionError,
    ) as error:
        raise ProtocolError(f"message is not valid MessagePack: {error}") from error


def _checked(message: dict[str, Any], limit: int) -> Optional[str]:
    """Raise LimitExceeded for too deep nesting, ProtocolError for an extension type. Returns what
    is wrong with the first number that cannot be stored, or None.

    Iterative, so that a deep message cannot exhaust the stack.
    """
    level: list[Any] = [message]
    depth = 0
    refusals: list[str] = []
    while level:
        depth += 1
        if depth > limit:
            raise LimitExceeded(f"message is nested more than {limit} deep")
        level = [inner for container in level for inner in _containers(container, refusals)]
    return refusals[0] if refusals else None


def _containers(container: Any, refusals: list[str]) -> list[Any]:
    """The lists and maps directly inside `container`. What is wrong with its numbers is added to
    `refusals`.
    """
    values = container.values() if isinstance(container, dict) else container
    found = []
    for value in values:
        kind = type(value)
        if kind is list or kind is dict:
            found.append(value)
        elif kind is float:
            # JSON has neither NaN nor infinities.
            if not isfinite(value):
                refusals.append("message has a number that is not finite")
        elif kind is int:
            if not -_INTEGERS <= value < _INTEGERS:
                refusals.append("message has an integer of more than 64 bits")
        elif kind is msgpack.Timestamp:
            raise ProtocolError("message has an extension type (timestamp)")
    return found
