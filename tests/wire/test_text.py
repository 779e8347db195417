"""Content lists: E12 (long lines, bad UTF-8, split code points, CRLF)."""

from __future__ import annotations

import re
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_agent.wire.errors import ProtocolError
from hostler_agent.wire.text import Content, LineSplitter, join, text_bytes

NEWLINE_RE = r"(\r\n|\r(?=.)|\033\[u|\033\[[0-9]+;[0-9]+[Hf]|\033\[2J|\x08+)"
"""What a stock Buildbot master sends."""


def splitter(max_line_length: int = 4096) -> LineSplitter:
    return LineSplitter(max_line_length, NEWLINE_RE)


def everything(chunks: list[bytes], lines: LineSplitter) -> Optional[Content]:
    content: Optional[Content] = None
    parts = [lines.feed(chunk, float(at)) for at, chunk in enumerate(chunks)]
    for part in [*parts, lines.flush(99.0)]:
        if part is not None:
            content = part if content is None else join(content, part)
    return content


def test_whole_lines_come_at_once_and_the_rest_waits() -> None:
    lines = splitter()
    assert lines.feed(b"one\ntwo\nthr", 1.0) == ["one\ntwo\n", [3, 7], [1.0, 1.0]]
    assert lines.feed(b"ee", 2.0) is None
    assert lines.feed(b"\nfour\n", 3.0) == ["three\nfour\n", [5, 10], [1.0, 3.0]]
    assert lines.flush(4.0) is None


def test_flush_makes_a_line_of_what_is_left() -> None:
    lines = splitter()
    assert lines.feed(b"no newline", 1.0) is None
    assert lines.flush(2.0) == ["no newline\n", [10], [1.0]]


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ([b"a\r", b"\nb\n"], "a\nb\n"),
        ([b"50%\r", b"99%\n"], "50%\n99%\n"),
        ([b"a\x1b[1", b"0;2Hb\n"], "a\nb\n"),
        ([b"ab\x08\x08c\n"], "ab\nc\n"),
        ([b"last\r"], "last\n"),
        ([b"\n\n"], "\n\n"),
        ([b"\xe2\x82", b"\xac\n"], "€\n"),
        ([b"a\xffb\n"], "a�b\n"),
        ([b"cut \xe2\x82"], "cut �\n"),
        ([b"nul\0\n"], "nul\0\n"),
        ([], None),
    ],
)
def test_texts(chunks: list[bytes], text: Optional[str]) -> None:
    content = everything(chunks, splitter())
    assert (None if content is None else content[0]) == text


def test_long_lines_are_cut_to_the_length_with_their_newline() -> None:
    lines = splitter(max_line_length=5)
    assert lines.feed(b"abcdefghij\n", 1.0) == ["abcd\nefgh\nij\n", [4, 9, 12], [1.0] * 3]


def test_a_line_without_end_is_not_kept_in_memory() -> None:
    lines = splitter(max_line_length=5)
    assert lines.feed(b"abcdefghij", 1.0) == ["abcd\nefgh\n", [4, 9], [1.0, 1.0]]
    assert lines.flush(2.0) == ["ij\n", [2], [1.0]]


def test_a_header_with_a_lone_surrogate_becomes_sendable() -> None:
    assert splitter().feed("in dir \udcff\n", 1.0) == ["in dir ?\n", [8], [1.0]]


def test_a_broken_newline_re_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="newline_re"):
        LineSplitter(4096, "(")


@given(st.lists(st.binary(max_size=30), max_size=10), st.integers(1, 12))
def test_positions_and_times_fit_the_text(chunks: list[bytes], max_line_length: int) -> None:
    content = everything(chunks, splitter(max_line_length))
    if content is None:
        assert b"".join(chunks) == b""
        return
    text, positions, times = content
    assert positions == [index for index, char in enumerate(text) if char == "\n"]
    assert text.endswith("\n")
    assert len(times) == len(positions)
    assert times == sorted(times)
    assert all(len(line) < max(max_line_length, 2) for line in text.split("\n"))


@given(st.text("ab€\n", max_size=60), st.data())
def test_how_the_bytes_arrive_makes_no_difference(text: str, data: st.DataObject) -> None:
    encoded = text.encode()
    cut = data.draw(st.integers(0, len(encoded)))
    content = everything([encoded[:cut], encoded[cut:]], splitter())
    got = "" if content is None else content[0]
    assert got == (text if text.endswith("\n") or not text else text + "\n")


@given(st.lists(st.sampled_from(["a", "\r", "\n", "\x08", "\x1b[u", "bc"]), max_size=20))
def test_the_parts_of_a_newline_may_arrive_apart(parts: list[str]) -> None:
    whole = everything(["".join(parts).encode()], splitter())
    apart = everything([part.encode() for part in parts], splitter())
    # Only the run of backspaces, which has no end to wait for, may become several lines.
    assert squeezed(whole) == squeezed(apart)


def squeezed(content: Optional[Content]) -> list[str]:
    return [] if content is None else [line for line in content[0].split("\n") if line]


def test_text_bytes_takes_back_what_was_cut() -> None:
    assert text_bytes(["a€\n", [2], [1.0]]) == "a€\n".encode()


@pytest.mark.parametrize("value", [None, "text", [], ["a", [1]], [b"a", [], []], {"a": 1}])
def test_text_bytes_refuses_other_values(value: object) -> None:
    with pytest.raises(ProtocolError):
        text_bytes(value)


def reference(chunks: list[bytes], room: int) -> list[str]:
    """What the lines should be, found the slow way."""
    text = b"".join(chunks).decode("utf-8", "replace")
    *lines, rest = re.sub(NEWLINE_RE, "\n", text).split("\n")
    lines += [rest] if rest else []
    return [line[at : at + room] for line in lines for at in range(0, len(line) or 1, room)]


@given(
    st.lists(st.sampled_from(["a", "line\n", "\n", "\x1b[2J", "€", "long " * 5]), max_size=40),
    st.integers(4, 30),
)
def test_lines_and_positions_are_those_of_a_slow_splitter(parts: list[str], length: int) -> None:
    chunk = "".join(parts).encode()
    content = everything([chunk], splitter(length))
    expected = reference([chunk], length - 1)
    assert ("" if content is None else content[0]) == "".join(line + "\n" for line in expected)


@given(st.text("a\r\n\b\033[2Ju;1H", max_size=40))
def test_buildbots_own_expression_is_only_written_faster(text: str) -> None:
    fast = LineSplitter(4096, NEWLINE_RE)
    slow = LineSplitter(4096, f"(?:{NEWLINE_RE})")
    assert everything([text.encode()], fast) == everything([text.encode()], slow)
