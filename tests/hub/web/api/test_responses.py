"""Answers as bytes: a view as its encoder writes it, plain data as json does, and odd text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hostler_hub.specs.view import View
from hostler_hub.web.api.responses import Json


class Shown(View):
    text: str
    numbers: dict[str, Any]


@pytest.mark.parametrize(
    ("text", "numbers", "body"),
    [
        ('ü \x1f\x00"\\/\u2028', {"a": 1, "b": [0.5, None, True]}, None),
        ("x", {"big": 10**30, "small": 1e-9, "whole": 600.0}, None),
        ("a\ud800b", {"\udfff": "\ud800"}, '{"text":"a?b","numbers":{"?":"?"}}'),
        ("x", {"nan": float("nan")}, '{"text":"x","numbers":{"nan":null}}'),
    ],
    ids=["text", "numbers", "surrogates", "nan"],
)
def test_a_view_goes_out_as_plain_data_does(
    text: str, numbers: dict[str, Any], body: str | None
) -> None:
    plain = {"text": text, "numbers": numbers}
    shown = Json(Shown(text=text, numbers=numbers)).body
    if body is not None:
        assert shown == body.encode()
    elif "small" in numbers:  # 1e-09 and 1e-9 are the same number
        assert shown.replace(b"1e-9", b"1e-09") == Json(plain).body
    else:
        assert shown == Json(plain).body


def test_plain_data_with_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        Json({"x": float("nan")})


def test_no_terminal_obeys_an_answer() -> None:
    text = "\x1b[2J\x9b31m\x7f\N{RIGHT-TO-LEFT OVERRIDE}"
    for answer in (Json({"x": text}), Json(Shown(text=text, numbers={}))):
        body = bytes(answer.body)
        assert body.isascii()
        assert not [each for each in body if each < 0x20 or each == 0x7F]
        assert text in json.loads(body).values()
