"""Ranges of versions: what is read, what is refused, and that 2.30 comes after 2.9."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_hub.specs.errors import ConditionError
from hostler_hub.specs.version_range import parse

VERSIONS = st.lists(st.integers(0, 99), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("text", "version", "holds"),
    [
        (">=2.30", "2.30", True),
        (">=2.30", "2.39.5", True),
        (">=2.30", "2.9", False),
        (">=2.9", "2.30", True),
        (">= 3", "3.0.0", True),
        ("==3.9", "3.9.0", True),
        ("==3.9", "3.9.1", False),
        ("!=3.9.1", "3.9.1", False),
        ("<4", "3.99", True),
        ("<=4", "4.0.1", False),
        (">4", "4.0", False),
        (">=3.9, <4", "3.12", True),
        (">=3.9,<4,!=3.11", "3.11.0", False),
        ("*", "1", True),
        ("*", None, True),
        (" * ", "no version", True),
        (">=1", None, False),
        (">=1", "no version", False),
    ],
)
def test_which_versions_a_range_holds(text: str, version: str | None, holds: bool) -> None:
    assert parse(text).holds(version) is holds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "one of < <= > >= == !="),
        ("2.30", "one of < <= > >= == !="),
        (">=", "a version"),
        (">= new", "a version"),
        (">=2.30-rc1", "a version"),
        (">=1.", "a version"),
        (">=-1", "a version"),
        (">=1 <2", '"," or the end, not <'),
        (">=1,", "one of < <= > >= == !="),
        ("~=1.2", "what is '~'?"),
        ("==1.*", "what is"),
        (">=1, *", "what is"),
        ("in [1, 2]", "one of"),
    ],
)
def test_what_is_no_range_is_told(text: str, words: str) -> None:
    with pytest.raises(ConditionError) as error:
        parse(text)
    assert words in str(error.value)


@given(one=VERSIONS, other=VERSIONS)
def test_order_is_that_of_the_numbers(one: list[int], other: list[int]) -> None:
    mine, theirs = ".".join(map(str, one)), ".".join(map(str, other))
    longest = max(len(one), len(other))
    filled = [parts + [0] * (longest - len(parts)) for parts in (one, other)]
    assert parse(f"<{theirs}").holds(mine) is (filled[0] < filled[1])
    assert parse(f"=={theirs}").holds(mine) is (filled[0] == filled[1])


@given(text=st.text(max_size=30), version=st.none() | st.text(max_size=30))
def test_any_text_is_a_range_or_refused(text: str, version: str | None) -> None:
    with contextlib.suppress(ConditionError):
        parse(text).holds(version)
