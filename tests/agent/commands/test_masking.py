"""No output shows a secret, however it is encoded and cut into chunks."""

from __future__ import annotations

import base64
import itertools
import json
import textwrap
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_agent.commands.masking import REMEMBERED_LEASES, LeaseMasks, Mask, StreamMask
from hostler_agent.commands.secret_forms import MAX_PIECE_BYTES, forms
from hostler_agent.wire.extension import CommandSecret, CommandTerms

SECRET = b"s3cr/t +v'a\"l&ue?"


def masked(secrets: list[bytes], *chunks: bytes) -> bytes:
    stream = StreamMask(Mask(secrets))
    return b"".join([*map(stream.feed, chunks), stream.finish()])


def test_a_secret_becomes_three_stars_wherever_it_is_cut() -> None:
    text = b"before " + SECRET + b" after\n"
    for at in range(len(text)):
        assert masked([SECRET], text[:at], text[at:]) == b"before *** after\n"


@pytest.mark.parametrize("before", [b"", b"a", b"ab", b"user:", b"Authorization: "])
def test_base64_is_masked_at_every_alignment(before: bytes) -> None:
    secret = b"correct horse battery"
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        shown = masked([secret], encode(before + secret + b"@host"))
        assert b"***" in shown
        # What is left around the mask is not enough to tell more than the edges.
        assert sum(map(len, shown.split(b"***"))) < len(encode(before + b"@host")) + 6


@pytest.mark.parametrize(
    "encode",
    [
        base64.b64encode,
        lambda secret: base64.b64encode(secret + b"\n"),
        lambda secret: base64.b64encode(secret).rstrip(b"="),
        lambda secret: quote(secret, safe="").encode(),
        lambda secret: quote(secret).encode(),
        lambda secret: quote(secret, safe="").lower().encode(),
        lambda secret: quote_plus(secret).encode(),
        lambda secret: json.dumps(secret.decode())[1:-1].encode(),
        lambda secret: secret.hex().encode(),
        lambda secret: secret.replace(b"'", b"'\\''"),  # sh -x
        lambda secret: secret.replace(b"&", b"&amp;"),
    ],
)
def test_an_encoded_secret_is_masked_whole(encode) -> None:
    assert masked([SECRET], b"<", encode(SECRET), b">") == b"<***>"


def test_each_line_of_a_secret_of_several_is_masked() -> None:
    secret = b"-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA\nab\n-----END KEY-----\n"
    assert masked([secret], b"a MIIEpAIBAAKCAQEA b\r\nab\n") == b"a *** b\r\nab\n"
    assert masked([secret], b"x" + secret.strip() + b"y") == b"x***y"
    assert masked([secret], b"x" + secret.strip().replace(b"\n", b"\r\n") + b"y") == b"x***y"


def test_base64_in_several_lines_is_masked() -> None:
    secret = bytes(range(33, 126)) * 3
    for width in (64, 76):
        lines = textwrap.wrap(base64.b64encode(secret + b"\n").decode(), width)
        shown = masked([secret], "\n".join(lines).encode())
        assert set(shown.split(b"\n")) == {b"***"}


def test_a_long_secret_is_masked_in_pieces_and_little_is_held_back() -> None:
    secret = bytes(97 + index * 7 % 26 for index in range(5000))
    assert max(map(len, forms([secret]))) <= 2 * MAX_PIECE_BYTES
    shown = masked([secret], b"<" + secret + b">")
    assert shown == b"<***>"


def test_occurrences_that_touch_or_overlap_are_one_mask() -> None:
    assert masked([b"abcd", b"cdef"], b"-abcdef-") == b"-***-"
    assert masked([b"abcd"], b"-abcdabcd-") == b"-***-"
    assert masked([b"abcd", b"abcdef"], b"-abcd", b"ef-") == b"-***-"
    assert masked([b"aaaa"], *[b"a"] * 100_000, b"b") == b"***b"


def test_an_ordinary_output_is_passed_on_at_once() -> None:
    stream = StreamMask(Mask([b"swordfish"]))
    assert stream.feed(b"Password: ") == b"Password: "
    assert stream.feed(b"sw") == b""
    assert stream.feed(b"an lake\n") == b"swan lake\n"


def test_the_beginning_of_a_secret_at_the_end_of_the_output_is_masked() -> None:
    """Whoever was killed while it wrote the secret has shown nearly all of it."""
    assert masked([b"swordfish"], b"a swordfis") == b"a ***"
    assert masked([b"swordfish"], b"a swo") == b"a swo"
    assert masked([b"swordfish"], b"swordfish", b"swordf") == b"***"


# No star: a mask beside one could make up a secret that is of stars alone.
LETTERS = st.binary(min_size=4, max_size=40).map(lambda data: data.replace(b"*", b"+"))
FEW = st.lists(st.sampled_from(b"ab"), min_size=4, max_size=12).map(bytes)


@given(
    secrets=st.lists(LETTERS | FEW, min_size=1, max_size=3),
    data=st.data(),
    cuts=st.lists(st.integers(0, 600), max_size=30),
)
def test_no_chunking_of_the_output_reveals_a_secret(secrets, data, cuts) -> None:
    known = forms(secrets)
    if not known:
        return
    parts = st.sampled_from(known) | st.binary(max_size=8) | st.sampled_from([b"a", b"b", b"\n"])
    text = b"".join(data.draw(st.lists(parts, max_size=20))).replace(b"*", b"+")
    ends = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    chunks = [text[start:end] for start, end in itertools.pairwise(ends)]
    shown = masked(secrets, *chunks)
    assert shown == masked(secrets, text)
    assert not [form for form in known if form in shown]


def test_a_lease_s_later_commands_are_masked_by_its_earlier_secrets() -> None:
    masks = LeaseMasks()
    secret = CommandSecret("TOKEN", b"swordfish")
    assert masks.add(None) is None
    assert masks.add(CommandTerms("one", 1)) is None
    assert masks.add(CommandTerms("one", 1, secrets=(secret,))) is not None
    later = masks.add(CommandTerms("one", 1))
    assert later is not None
    assert later.text("a swordfish\n") == "a ***\n"
    assert masks.add(CommandTerms("two", 1)) is None
    for number in range(REMEMBERED_LEASES):
        masks.add(CommandTerms(str(number), 1, secrets=(secret,)))
    assert masks.add(CommandTerms("one", 1)) is None
