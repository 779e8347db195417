"""Conditions on facts: what is read, what is refused and where, what matches."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_hub.specs.conditions import Condition, parse
from hostler_hub.specs.errors import ConditionError

FACTS: dict[str, Any] = {
    "memory_mb": 8192,
    "load": 0.5,
    "os_id": "debian",
    "os_version_id": "12",
    "gpu": True,
    "os_variant_id": None,
}


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("memory_mb >= 8000", Condition("memory_mb", ">=", (8000,))),
        ("memory_mb>=8e3", Condition("memory_mb", ">=", (8000.0,))),
        ("load < -.5", Condition("load", "<", (-0.5,))),
        ("os_id == debian", Condition("os_id", "==", ("debian",))),
        ("os_id != 'red hat'", Condition("os_id", "!=", ("red hat",))),
        ("os_version_id == 12.10-rc", Condition("os_version_id", "==", ("12.10-rc",))),
        ('os_version_id == "12"', Condition("os_version_id", "==", ("12",))),
        ("gpu == true", Condition("gpu", "==", (True,))),
        ("os_variant_id == null", Condition("os_variant_id", "==", (None,))),
        (
            "  os_id in [ debian,ubuntu , 'x y' ]  ",
            Condition("os_id", "in", ("debian", "ubuntu", "x y")),
        ),
        ("in in [in]", Condition("in", "in", ("in",))),
    ],
)
def test_what_a_condition_says(text: str, condition: Condition) -> None:
    assert parse(text) == condition
    assert parse(str(condition)) == condition


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("", 1, "the name of a fact, but the text ends"),
        ("8000 <= memory_mb", 1, "the name of a fact, not 8000"),
        ("memory_mb", 10, "one of == != < <= > >= in, but the text ends"),
        ("memory_mb = 8000", 11, "what is '='?"),
        ("memory_mb >= ", 13, "a value"),
        ("memory_mb >= much", 14, '>= compares numbers, and much is the text "much"'),
        ('memory_mb >= "8000"', 14, "compares numbers"),
        ("gpu < true", 7, "compares numbers, and true is true or false"),
        ("os_id in debian", 10, '"[", not debian'),
        ("os_id in []", 11, "a value"),
        ("os_id in [debian", 17, '"," or "]", but the text ends'),
        ("os_id == debian ubuntu", 17, "the end: one condition per text, not ubuntu"),
        ("os_id == debian and x == 1", 17, "the end"),
        ("os_id == 'debian", 10, "this quote has no end"),
        ("os_id == é", 10, "what is 'é'?"),
        ("x" * 2000, 1025, "at most 1024 characters"),
    ],
)
def test_what_is_no_condition_is_told_where(text: str, position: int, words: str) -> None:
    with pytest.raises(ConditionError) as error:
        parse(text)
    assert error.value.position == position
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("memory_mb >= 8192", None),
        ("memory_mb > 8192", "its fact memory_mb is 8192, not > 8192"),
        ("memory_mb == 8192.0", None),
        ("load <= 0.5", None),
        ("os_id == debian", None),
        ("os_id == alpine", 'its fact os_id is "debian", not "alpine"'),
        ("os_id != debian", 'its fact os_id is "debian", not != "debian"'),
        ("os_id in [alpine, debian]", None),
        ("os_id in [alpine, 1]", 'its fact os_id is "debian", not in ["alpine", 1]'),
        ("os_version_id == 12", 'it is a text: write os_version_id == "12"'),
        ("os_version_id >= 12", 'is the text "12", which has no order to os_version_id >= 12'),
        ("gpu == 1", "its fact gpu is true, not 1"),
        ("gpu != 1", None),
        ("gpu >= 1", "its fact gpu is true or false, which has no order"),
        ("os_variant_id == null", None),
        ("os_variant_id > 1", "its fact os_variant_id is null, which has no order"),
        ("cores >= 1", "it has no fact cores"),
        ("cores != 1", "it has no fact cores"),
    ],
)
def test_what_matches_and_what_is_said_when_it_does_not(text: str, refusal: str | None) -> None:
    said = parse(text).refusal(FACTS)
    if refusal is None:
        assert said is None
    else:
        assert said is not None
        assert refusal in said


@given(text=st.text(max_size=40))
def test_any_text_is_a_condition_or_refused_within_it(text: str) -> None:
    try:
        parse(text).refusal(FACTS)
    except ConditionError as error:
        position = error.position
    else:
        position = 1
    assert 1 <= position <= len(text) + 1


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)


@given(fact=NUMBERS, value=NUMBERS)
def test_numbers_compare_as_numbers(fact: float, value: float) -> None:
    met = {
        sign: Condition("n", sign, (value,)).refusal({"n": fact}) is None
        for sign in ("==", "!=", "<", "<=", ">", ">=", "in")
    }
    assert met["=="] == met["in"] == (fact == value)
    assert met["!="] == (fact != value)
    assert (met["<"], met["<="]) == (fact < value, fact <= value)
    assert (met[">"], met[">="]) == (fact > value, fact >= value)
