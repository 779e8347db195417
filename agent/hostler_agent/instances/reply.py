"""Requests in, framed replies out.

A reply is a line `@hostler NONCE SIZE` and SIZE bytes of JSON. Whoever asked has chosen the nonce,
so that nothing a login prints is taken for a reply.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Optional

from hostler_agent.instances.errors import REQUEST, HostError

MAX_REQUEST_BYTES = 256 * 1024
NONCE = re.compile(r"[0-9a-zA-Z]{8,64}")
INSTANCE = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")
"""A ULID; hubs have them as well."""

_FRAME = "\n@hostler {} "


def parse(content: bytes) -> dict[str, Any]:
    """The request; raises HostError."""
    if len(content) > MAX_REQUEST_BYTES:
        raise HostError(REQUEST, f"the request is larger than {MAX_REQUEST_BYTES} bytes")
    try:
        request = json.loads(content)
    except ValueError as error:
        raise HostError(REQUEST, f"the request is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise HostError(REQUEST, "the request is not a JSON object")
    return request


def text(request: Mapping[str, Any], key: str) -> str:
    """A string of the request; raises HostError."""
    value = request.get(key)
    if not isinstance(value, str) or not value or "\0" in value:
        raise HostError(REQUEST, f"{key!r} must be text")
    return value


def ulid(request: Mapping[str, Any], key: str) -> str:
    """A ULID of the request; raises HostError."""
    value = text(request, key)
    if not INSTANCE.fullmatch(value):
        raise HostError(REQUEST, f"{key!r} must be a ULID")
    return value


def frame(nonce: str, reply: Mapping[str, Any]) -> bytes:
    """The reply in its frame."""
    body = json.dumps(reply).encode()
    return f"{_FRAME.format(nonce)}{len(body)}\n".encode() + body + b"\n"


def find(nonce: str, output: bytes) -> Optional[dict[str, Any]]:
    """The reply among what a login has printed, or None."""
    head = _FRAME.format(nonce).encode()
    start = (b"\n" + output).find(head)
    if start < 0:
        return None
    size, newline, rest = (b"\n" + output)[start + len(head) :].partition(b"\n")
    if not newline or not size.isdigit() or len(size) > 9 or len(rest) < int(size):
        return None
    try:
        reply = json.loads(rest[: int(size)])
    except ValueError:
        return None
    return reply if isinstance(reply, dict) else None
