from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_agent.wire.credentials import decode_basic, encode_basic
from hostler_agent.wire.errors import CredentialsError

TEXT = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=40)


def basic(plain: bytes) -> str:
    return "Basic " + base64.b64encode(plain).decode()


def test_the_example_of_rfc_7617() -> None:
    header = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert encode_basic("Aladdin", "open sesame") == header
    assert decode_basic(header) == ("Aladdin", "open sesame")


@given(TEXT.filter(lambda name: ":" not in name), TEXT)
def test_round_trip(name: str, password: str) -> None:
    assert decode_basic(encode_basic(name, password)) == (name, password)


def test_a_password_may_hold_colons() -> None:
    assert decode_basic(encode_basic("a", "b:c:")) == ("a", "b:c:")


@pytest.mark.parametrize("scheme", ["basic", "BASIC"])
def test_the_scheme_ignores_case(scheme: str) -> None:
    assert decode_basic(f"{scheme} YTpi") == ("a", "b")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic ",
        "Bearer YTpi",
        "BasicYTpi",
        "Basic YTpi!",
        "Basic YTp",
        basic(b"nocolon"),
        basic(b"a:\xff"),
        basic(b"a:b\n"),
        basic(b"a\0:b"),
        "Basic é",
        basic(b"a:" + b"b" * 4096),
    ],
)
def test_bad_headers_are_refused(header: str) -> None:
    with pytest.raises(CredentialsError):
        decode_basic(header)


@pytest.mark.parametrize(
    ("name", "password"),
    [("a:b", "s3cret"), ("a\n", "s3cret"), ("a", "s3cret\r\nX: y"), ("a", "s3cret\ud800")],
)
def test_what_cannot_be_sent_is_refused_without_showing_the_password(
    name: str, password: str
) -> None:
    with pytest.raises(CredentialsError) as caught:
        encode_basic(name, password)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


@given(st.text(max_size=60))
def test_any_header_is_credentials_or_refused(header: str) -> None:
    with contextlib.suppress(CredentialsError):
        decode_basic("Basic " + header)
