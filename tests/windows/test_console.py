"""Text from consoles, whatever their code page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_agent.machine.console import ConsoleDecoder


@pytest.mark.parametrize(
    ("code_page", "text"),
    [
        ("cp437", "Größe: é"),
        ("cp850", "Größe €".replace("€", "ø")),
        ("cp932", "日本語の出力"),
        ("cp866", "Привет"),
    ],
)
def test_a_code_pages_text_is_understood(code_page: str, text: str) -> None:
    decoder = ConsoleDecoder(code_page)
    assert decoder.decode((text + "\r\n").encode(code_page)) == text + "\r\n"


def test_each_line_is_decided_by_itself() -> None:
    decoder = ConsoleDecoder("cp437")
    data = b"plain\n" + "größer\n".encode() + "größer\n".encode("cp437")
    assert decoder.decode(data) == "plain\ngrößer\ngrößer\n"


@given(st.lists(st.integers(1, 7)))
def test_where_the_blocks_end_does_not_matter(cuts: list[int]) -> None:
    text = "日本語\nutf é\r\nend ソ表"
    data = (
        text.split("utf", maxsplit=1)[0].encode("cp932")
        + "utf é\r\n".encode()
        + "end ソ表".encode("cp932")
    )
    decoder, said, at = ConsoleDecoder("cp932"), "", 0
    for cut in cuts:
        said += decoder.decode(data[at : at + cut])
        at += cut
    assert said + decoder.decode(data[at:], final=True) == text


def test_nothing_is_held_for_ever() -> None:
    decoder = ConsoleDecoder("cp437")
    assert len(decoder.decode(b"x" * 9000)) == 9000


def test_bytes_that_mean_nothing_are_replaced() -> None:
    assert ConsoleDecoder("cp1253").decode(b"a\xffb\n") == "a\ufffdb\n"
