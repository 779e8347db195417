"""Which paths may name an artifact, and what is said of the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_hub.specs.artifact_path import (
    DEPTH,
    NAME_SIZE_BYTES,
    PATH_SIZE_BYTES,
    decoded,
    parts_of,
    shown,
)


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "out/app.tar.gz",
        "with space/ümlaut",
        "..a/b..",
        ".hidden",
        "c:d",
        "a/C:",
        "C:",
        "C:evil",
        "x:stream",
        "CON",
        "dots...",
        "blank ",
        "a\\b",
        "a\x1b[2J",
        "a\x7f",
        "two\nlines",
        "x" * NAME_SIZE_BYTES,
        "/".join("d" * DEPTH),
        "/".join(["x" * 204] * 5),
    ],
)
def test_a_plain_relative_path_is_taken_as_it_is(path: str) -> None:
    assert len(path) <= PATH_SIZE_BYTES
    assert "/".join(parts_of(path)) == path


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("", "is not relative and plain"),
        ("/etc/passwd", "is not relative and plain"),
        ("a//b", "is not relative and plain"),
        ("a/", "is not relative and plain"),
        ("./a", "is not relative and plain"),
        ("a/..", "is not relative and plain"),
        ("../a", "is not relative and plain"),
        ("a\x00b", "holds a NUL character"),
        ("x" * (NAME_SIZE_BYTES + 1), "has a name longer than 255 bytes"),
        ("ü" * 128, "has a name longer than 255 bytes"),
        ("/".join("d" * (DEPTH + 1)), "is deeper than 64"),
        ("/".join(["x" * 204] * 5) + "x", "is longer than 1024 bytes"),
        ("a\udcff", "is not UTF-8"),
    ],
    ids=ascii,
)
def test_U2_what_could_lead_elsewhere_or_says_more_than_a_name_is_refused(
    path: str, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        parts_of(path)


def test_what_is_said_of_a_path_is_short_and_harmless() -> None:
    with pytest.raises(ValueError, match="not UTF-8") as refused:
        parts_of("\x1b[2J\udcff" + "/x" * 30)
    assert str(refused.value).isprintable()
    with pytest.raises(ValueError, match="longer") as refused:
        parts_of("x" * 1_000_000)
    assert len(str(refused.value)) < 300


@given(st.text(alphabet=st.characters(), max_size=30))
def test_U2_no_text_leads_out(path: str) -> None:
    try:
        parts = parts_of(path)
    except ValueError:
        return
    assert not {"", ".", ".."} & set(parts)
    assert "\0" not in path


@given(st.binary(max_size=40))
def test_bytes_that_are_no_text_get_codes(name: bytes) -> None:
    text = decoded(name.decode("utf-8", "surrogateescape"))
    text.encode()
    assert text == name.decode("utf-8", "backslashreplace")


def test_what_is_shown_of_a_path_is_short_and_one_line() -> None:
    assert shown("a\x1b[2J\nb/\N{SNOWMAN}") == "a\\x1b[2J\\x0ab/\N{SNOWMAN}"
    assert len(shown("x" * 1000)) == 200
