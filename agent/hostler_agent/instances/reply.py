"""Parses requests, and frames replies.

A reply is a line `@hostler NONCE SIZE` followed by SIZE bytes of JSON. The requesting hub chose the
nonce, so that no other output of a login can be taken for a reply.
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
"""The format of a ULID, which identifies instances and hubs."""

_FRAME = "\n@hostler {} "


def parse(content: bytes) -> dict[str, Any]:
    """Parse a request, which must be a JSON object. Raises HostError."""
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
    """A string in the request, not empty. Raises HostError."""
    value = request.get(key)
    if not isinstance(value, str) or not value or "\0" in value:
        raise HostError(REQUEST, f"{key!r} must be text")
    return value


def ulid(request: Mapping[str, Any], key: str) -> str:
    """A ULID in the request. Raises HostError."""
    value = text(request, key)
    if not INSTANCE.fullmatch(value):
        raise HostError(REQUEST, f"{key!r} must be a ULID")
    return value


def frame(nonce: str, reply: Mapping[str, Any]) -> bytes:
    """The reply as JSON in a frame."""
    body = json.dumps(reply).encode()
    return f"{_FRAME.format(nonce)}{len(body)}\n".encode() + body + b"\n"


def find(nonce: str, output: bytes) -> Optional[dict[str, Any]]:
    """Find the reply with this nonce in the output of a login. Returns None if there is none."""
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
