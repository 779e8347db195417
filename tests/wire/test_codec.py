"""Frames: what a peer may make us decode, one past each limit (U4)."""

from __future__ import annotations

import contextlib
import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_agent.wire import codec
from hostler_agent.wire.errors import LimitExceeded, ProtocolError, WireError
from hostler_agent.wire.limits import TO_HUB, MessageLimits

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


def nested(depth: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@given(st.dictionaries(st.text(), VALUES, max_size=8))
def test_what_is_encoded_decodes_to_itself(message: dict[str, object]) -> None:
    assert codec.decode(codec.encode(message), TO_HUB) == message


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), float("-inf"), 2**63, 2**64 - 1], ids=str
)
@pytest.mark.parametrize("place", ["value", "in a list", "in a map"])
def test_U4_numbers_that_nobody_can_store_are_refused(value: float, place: str) -> None:
    """One agent's NaN once broke the list of all workers for everybody."""
    inside = {"value": value, "in a list": [1.5, value], "in a map": {"b": value}}[place]
    with pytest.raises(ProtocolError, match=r"not finite|more than 64 bits"):
        codec.decode(codec.encode({"a": inside}), TO_HUB)


@given(st.binary(max_size=300))
def test_garbage_only_ever_raises_a_wire_error(frame: bytes) -> None:
    with contextlib.suppress(WireError):
        assert isinstance(codec.decode(frame, TO_HUB), dict)


@given(st.dictionaries(st.text(), VALUES, max_size=4), st.data())
def test_a_mutated_frame_only_ever_raises_a_wire_error(
    message: dict[str, object], data: st.DataObject
) -> None:
    frame = bytearray(codec.encode(message))
    position = data.draw(st.integers(0, len(frame) - 1))
    frame[position] = data.draw(st.integers(0, 255))
    with contextlib.suppress(WireError):
        assert isinstance(codec.decode(bytes(frame), TO_HUB), dict)


def test_a_frame_at_the_size_limit_passes_and_one_byte_more_does_not() -> None:
    frame = codec.encode({"a": b"x" * 100})
    assert codec.decode(frame, MessageLimits(len(frame)))
    with pytest.raises(LimitExceeded, match="over the limit"):
        codec.decode(frame, MessageLimits(len(frame) - 1))


def test_depth_at_the_limit_passes_and_one_more_does_not() -> None:
    assert codec.decode(codec.encode(nested(32)), TO_HUB)
    with pytest.raises(LimitExceeded, match="more than 32 deep"):
        codec.decode(codec.encode(nested(33)), TO_HUB)


def test_items_at_the_limit_pass_and_one_more_does_not() -> None:
    limits = MessageLimits(1000, items=10)
    assert codec.decode(codec.encode({"a": [0] * 9}), limits)
    with pytest.raises(LimitExceeded, match="more than 10 items"):
        codec.decode(codec.encode({"a": [0] * 5, "b": [0] * 4}), limits)


def test_empty_containers_count_as_items() -> None:
    with pytest.raises(LimitExceeded, match="more than 10 items"):
        codec.decode(codec.encode({"a": [[]] * 6}), MessageLimits(1000, items=10))


def test_more_nesting_than_any_stack_holds_raises_and_does_not_crash() -> None:
    with pytest.raises(WireError):
        codec.decode(b"\x81\xa1a" + b"\x91" * 1_000_000, TO_HUB)


def test_a_mebibyte_of_empty_lists_is_refused_before_it_takes_much_memory() -> None:
    """V15: 8 MiB is a tenth of what the frame would cost decoded."""
    lists = b"\xdc\xff\xff" + b"\x90" * 65_535
    frame = b"\x81\xa1a\x9f" + lists * 15
    tracemalloc.start()
    try:
        with pytest.raises(LimitExceeded):
            codec.decode(frame, TO_HUB)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xc1", id="reserved byte"),
        pytest.param(b"\x93\x01\x02\x03", id="a list"),
        pytest.param(b"\xa3abc", id="a string"),
        pytest.param(b"\x80\x80", id="bytes after the map"),
        pytest.param(b"\x81\x01\x02", id="a number as a key"),
        pytest.param(b"\x81\x91\x01\x02", id="a list as a key"),
        pytest.param(b"\x81\xa1a\xa1\xff", id="a string that is no UTF-8"),
        pytest.param(b"\x81\xa1a\xdd\xff\xff\xff\xff", id="a length of four billion"),
        pytest.param(b"\x81\xa1a\xc6\xff\xff\xff\xff", id="bytes of four gigabytes"),
        pytest.param(msgpack.packb({"a": msgpack.ExtType(5, b"x")}), id="extension"),
        pytest.param(msgpack.packb({"a": [msgpack.Timestamp(1)]}), id="timestamp"),
        pytest.param(b"\x81\xa1a\xc7\x03\xff\x01\x02\x03", id="a timestamp of three bytes"),
    ],
)
def test_what_is_no_message_is_a_protocol_error(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        codec.decode(frame, TO_HUB)


@pytest.mark.parametrize("value", [object(), 2**64, "\ud800", {1, 2}])
def test_what_msgpack_cannot_carry_is_a_protocol_error(value: object) -> None:
    with pytest.raises(ProtocolError, match="cannot be encoded"):
        codec.encode({"a": value})


def test_a_value_that_contains_itself_is_a_protocol_error() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(ProtocolError, match="cannot be encoded"):
        codec.encode({"a": loop})


def test_a_map_encoded_ahead_joins_with_its_head() -> None:
    body = {"command_id": "c1", "args": [["stdout", "x" * 1000], ["rc", 0]]}
    head = {"op": "update", "seq_number": 70_000}
    frame = codec.joined(head, codec.encode(body))
    assert frame == codec.encode({**head, **body})


@pytest.mark.parametrize("body", [{str(key): key for key in range(14)}, {}, {"a": 1}])
def test_only_small_maps_are_joined(body: dict[str, int]) -> None:
    head = {"op": "update", "seq_number": 1}
    if len(body) <= 13:
        assert codec.decode(codec.joined(head, codec.encode(body)), TO_HUB) == {**head, **body}
    else:
        with pytest.raises(ProtocolError):
            codec.joined(head, codec.encode(body))
