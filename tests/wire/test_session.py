"""Two sessions talking, and one that is talked to badly."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_agent.wire import codec
from hostler_agent.wire.errors import LimitExceeded, ProtocolError, TooManyInFlight, WireError
from hostler_agent.wire.limits import TO_HUB, MessageLimits
from hostler_agent.wire.messages import (
    Complete,
    InterruptCommand,
    Keepalive,
    Print,
    Shutdown,
    StartCommand,
    Update,
    UpdateReadFile,
)
from hostler_agent.wire.session import (
    Answered,
    Failed,
    Rejected,
    Requested,
    Role,
    Session,
)


def requested(session: Session, frame: bytes) -> Requested:
    event = session.receive(frame)
    assert isinstance(event, Requested)
    return event


def rejected(session: Session, mapping: dict[str, Any]) -> Rejected:
    event = session.receive(codec.encode(mapping))
    assert isinstance(event, Rejected)
    return event


def test_requests_cross_and_answers_come_in_any_order() -> None:
    hub, agent = Session(Role.HUB), Session(Role.AGENT)
    first = requested(agent, hub.request(Keepalive(), "first"))
    second = requested(agent, hub.request(Print("hello"), "second"))
    own = requested(hub, agent.request(Update("7", [["rc", 0]]), "own"))
    assert second.message == Print("hello")
    assert own.message == Update("7", [["rc", 0]])
    assert hub.receive(agent.answer(second.seq_number)) == Answered("second", None)
    assert hub.receive(agent.answer(first.seq_number, 5)) == Answered("first", 5)
    failed = agent.receive(hub.refuse(own.seq_number, "disk full"))
    assert isinstance(failed, Failed)
    assert (failed.token, str(failed.error)) == ("own", "disk full")
    assert (hub.in_flight, hub.unanswered, agent.in_flight, agent.unanswered) == (0, 0, 0, 0)


def test_a_response_to_nothing_is_ignored() -> None:
    """Buildbot's peers lose the connection over it."""
    agent = Session(Role.AGENT)
    frame = codec.encode({"op": "response", "seq_number": 99, "result": None})
    assert agent.receive(frame) is None


def test_a_second_response_is_ignored() -> None:
    hub, agent = Session(Role.HUB), Session(Role.AGENT)
    hub.request(Keepalive(), "t")
    frame = agent.answer(1)
    assert hub.receive(frame) == Answered("t", None)
    assert hub.receive(frame) is None


def test_an_abandoned_request_frees_its_slot_and_ignores_its_answer() -> None:
    hub, agent = Session(Role.HUB), Session(Role.AGENT)
    token = object()
    event = requested(agent, hub.request(Keepalive(), token))
    hub.abandon(token)
    assert hub.in_flight == 0
    assert hub.receive(agent.answer(event.seq_number)) is None


def test_an_unknown_operation_is_rejected_and_the_conversation_goes_on() -> None:
    hub, agent = Session(Role.HUB), Session(Role.AGENT)
    event = rejected(agent, {"op": "rm_rf", "seq_number": 3})
    assert "'rm_rf' does not exist" in str(event.error)
    answer = codec.decode(event.frame, TO_HUB)
    assert answer["seq_number"] == 3
    assert answer["is_exception"] is True
    assert requested(agent, hub.request(Keepalive(), "t"))
    assert agent.unanswered == 1


@pytest.mark.parametrize("message", [Keepalive(), Shutdown(), StartCommand("1", "shell", {})])
def test_a_worker_cannot_ask_what_only_a_hub_may(message: Any) -> None:
    """U1: a closed table of operations per direction."""
    frame = Session(Role.HUB).request(message, "t")
    event = Session(Role.HUB).receive(frame)
    assert isinstance(event, Rejected)


def test_a_missing_key_is_rejected_by_name() -> None:
    event = rejected(Session(Role.AGENT), {"op": "interrupt_command", "seq_number": 1, "why": "x"})
    assert str(event.error) == "interrupt_command: key 'command_id' is missing"


@pytest.mark.parametrize(
    "mapping",
    [
        {"op": "keepalive"},
        {"seq_number": 1},
        {"op": 1, "seq_number": 1},
        {"op": "keepalive", "seq_number": "1"},
        {"op": "keepalive", "seq_number": True},
        {"op": "keepalive", "seq_number": None},
        {"op": "response", "seq_number": 1},
    ],
)
def test_what_cannot_be_answered_ends_the_conversation(mapping: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        Session(Role.AGENT).receive(codec.encode(mapping))


def test_a_seq_number_that_waits_for_an_answer_cannot_be_used_again() -> None:
    agent = Session(Role.AGENT)
    frame = codec.encode({"op": "keepalive", "seq_number": 1})
    requested(agent, frame)
    with pytest.raises(ProtocolError, match="unanswered"):
        agent.receive(frame)


def test_is_exception_false_is_a_success() -> None:
    agent = Session(Role.AGENT)
    agent.request(UpdateReadFile("7", 1), "t")
    mapping = {"op": "response", "seq_number": 1, "result": b"x", "is_exception": False}
    assert agent.receive(codec.encode(mapping)) == Answered("t", b"x")


def test_one_request_more_than_allowed_in_flight_is_refused() -> None:
    agent = Session(Role.AGENT)
    for number in range(64):
        agent.request(Complete(str(number)), number)
    with pytest.raises(TooManyInFlight):
        agent.request(Complete("64"), 64)
    agent.receive(Session(Role.HUB).answer(1))
    assert agent.request(Complete("64"), 64)
    assert agent.in_flight == 64


def test_a_request_too_large_for_the_peer_changes_nothing() -> None:
    agent = Session(Role.AGENT, peer_limits=MessageLimits(100))
    with pytest.raises(LimitExceeded):
        agent.request(Update("7", [["stdout", "x" * 100]]), "t")
    assert agent.in_flight == 0
    assert b"\xaaseq_number\x01" in agent.request(Update("7", []), "t")


def test_an_answer_too_large_for_the_peer_can_still_be_refused() -> None:
    agent, hub = Session(Role.AGENT), Session(Role.HUB, peer_limits=MessageLimits(100))
    event = requested(hub, agent.request(UpdateReadFile("7", 1000), "t"))
    with pytest.raises(LimitExceeded):
        hub.answer(event.seq_number, b"x" * 1000)
    assert hub.unanswered == 1
    assert isinstance(agent.receive(hub.refuse(event.seq_number, "too large")), Failed)


def test_each_end_accepts_what_its_direction_allows() -> None:
    hub, agent = Session(Role.HUB), Session(Role.AGENT)
    assert agent.receive(hub.request(Print("x" * (2 * 2**20)), "t"))
    with pytest.raises(LimitExceeded):
        agent.request(Update("7", [["stdout", b"x" * (2 * 2**20)]]), "t")


def test_an_error_text_is_cut_and_made_sendable() -> None:
    agent, hub = Session(Role.AGENT), Session(Role.HUB)
    hub.request(InterruptCommand("7", "why"), "t")
    failed = hub.receive(agent.refuse(1, "\udcff" + "x" * 10_000))
    assert isinstance(failed, Failed)
    assert str(failed.error) == "?" + "x" * 4095


def test_a_lost_connection_gives_back_the_tokens() -> None:
    agent = Session(Role.AGENT)
    agent.request(Complete("1"), "a")
    agent.request(Complete("2"), "b")
    assert agent.lose() == ["a", "b"]
    assert agent.lose() == []
    assert agent.in_flight == 0


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_garbage_only_ever_raises_wire_errors(frames: list[bytes]) -> None:
    session = Session(Role.HUB)
    for frame in frames:
        with contextlib.suppress(WireError):
            session.receive(frame)


KEYS = st.sampled_from(["op", "seq_number", "command_id", "args", "result", "is_exception", "x"])
OPS = st.sampled_from(["update", "complete", "response", "update_read_file", "keepalive"])
VALUES = st.none() | st.integers(-5, 5) | OPS | st.lists(OPS, max_size=3) | st.binary(max_size=3)


@given(st.sampled_from(Role), st.dictionaries(KEYS, VALUES))
def test_any_map_is_an_event_or_a_wire_error(role: Role, mapping: dict[str, Any]) -> None:
    session = Session(role)
    session.request(Keepalive(), "t")
    try:
        event = session.receive(codec.encode(mapping))
    except WireError:
        return
    assert event is None or isinstance(event, (Requested, Answered, Failed, Rejected))
