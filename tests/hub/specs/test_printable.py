"""Texts of others that no terminal obeys."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_hub.specs.printable import escape_controls, escape_json, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with ümlauts \N{SNOWMAN}", "plain, with ümlauts \N{SNOWMAN}"),
        ("two\r\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("\x9b31m", "\\x9b31m"),
        ("over\rwritten\x7f", "over\\x0dwritten\\x7f"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}txt.exe", "\\u202etxt.exe"),
        ("\0", "\\x00"),
    ],
    ids=ascii,
)
def test_control_characters_become_words(text: str, shown: str) -> None:
    assert escape_controls(text) == shown


def test_a_name_is_one_line() -> None:
    assert one_line("a\nb\tc\x1bd\u2028") == "a\\x0ab\\x09c\\x1bd\\u2028"


@given(st.text(max_size=50))
def test_nothing_a_terminal_obeys_is_left(text: str) -> None:
    for shown in (escape_controls(text), one_line(text), escape_json(json.dumps(text))):
        assert not [
            each for each in shown if unicodedata.category(each) == "Cc" and each not in "\n\t"
        ]
    assert escape_controls(escape_controls(text)) == escape_controls(text)


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_means_the_same(value: object) -> None:
    assert json.loads(escape_json(json.dumps(value, ensure_ascii=False))) == value
