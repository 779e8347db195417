"""Replies among whatever else a login prints (G2)."""

from __future__ import annotations

import pytest

from hostler_agent.instances.reply import find, frame

NONCE = "0123456789abcdef"
REPLY = {"state": "running", "words": "über\nzwei Zeilen"}


@pytest.mark.parametrize(
    "noise",
    [b"", b"Welcome to host\n", b"no newline at the end", b"\xff\x00\n@hostler other 3\n{}"],
)
@pytest.mark.parametrize("after", [b"", b"logout\n"])
def test_G2_a_reply_is_found_among_noise(noise: bytes, after: bytes) -> None:
    assert find(NONCE, noise + frame(NONCE, REPLY) + after) == REPLY


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"@hostler " + NONCE.encode() + b" 10\n{}",
        b"@hostler " + NONCE.encode() + b" 2\n[]",
        b"@hostler " + NONCE.encode() + b" 2\n{{",
        b"@hostler " + NONCE.encode() + b" -1\n{}",
        b"@hostler " + NONCE.encode() + b" 9999999999999999999\n{}",
        frame("another-nonce-00", REPLY),
    ],
)
def test_what_is_no_whole_reply_is_none(output: bytes) -> None:
    assert find(NONCE, output) is None
