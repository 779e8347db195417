"""Every operation against golden frames, and with each of its keys missing or mistyped.

The golden frames were written byte by byte after the MessagePack specification, not by our encoder:
never regenerate them with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack
import pytest

from hostler_agent.wire import messages
from hostler_agent.wire.errors import ProtocolError
from hostler_agent.wire.messages import AGENT_OPERATIONS, HUB_OPERATIONS, SetWorkerSettings
from hostler_agent.wire.session import OPERATIONS, Answered, Failed, Requested, Role, Session

GOLDEN = json.loads((Path(__file__).parent / "vectors" / "golden.json").read_text("utf-8"))
ALL = {**HUB_OPERATIONS, **AGENT_OPERATIONS}


def thawed(value: Any) -> Any:
    """JSON has no bytes: the vectors write them as {"bytes": hex}."""
    if isinstance(value, dict):
        if set(value) == {"bytes"}:
            return bytes.fromhex(value["bytes"])
        return {key: thawed(inner) for key, inner in value.items()}
    return [thawed(inner) for inner in value] if isinstance(value, list) else value


def golden_id(entry: dict[str, Any]) -> str:
    return str(entry["message"])


@pytest.mark.parametrize("entry", GOLDEN["requests"], ids=golden_id)
def test_a_golden_frame_is_read_as_its_message(entry: dict[str, Any]) -> None:
    event = Session(Role(entry["receiver"])).receive(bytes.fromhex(entry["frame"]))
    assert isinstance(event, Requested)
    assert event.seq_number == 1
    assert type(event.message).__name__ == entry["message"]
    assert event.message == type(event.message).parse(thawed(entry["keys"]))
    assert event.message.body() == expected_body(entry)


@pytest.mark.parametrize("entry", GOLDEN["requests"], ids=golden_id)
def test_a_message_is_written_as_its_golden_frame(entry: dict[str, Any]) -> None:
    message = getattr(messages, entry["message"]).parse(thawed(entry["keys"]))
    sender = Role.HUB if entry["receiver"] == "agent" else Role.AGENT
    frame = Session(sender).request(message, token=None)
    golden = msgpack.unpackb(bytes.fromhex(entry["frame"]))
    if frame.hex() != entry["frame"]:  # the order of a map's keys is free
        assert msgpack.unpackb(frame) == golden


def expected_body(entry: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = thawed(entry["keys"])
    return body


def test_golden_responses() -> None:
    frames = {entry["name"]: bytes.fromhex(entry["frame"]) for entry in GOLDEN["responses"]}

    def receive(name: str) -> object:
        session = Session(Role.AGENT)
        session.request(messages.UpdateReadFile("7", 1), token="t")
        return session.receive(frames[name])

    assert receive("success") == Answered("t", None)
    assert receive("data") == Answered("t", b"\x01")
    failed = receive("exception")
    assert isinstance(failed, Failed)
    assert (failed.token, str(failed.error)) == ("t", "boom")
    hub = Session(Role.HUB)
    assert hub.answer(1) == frames["success"]
    assert hub.answer(1, b"\x01") == frames["data"]
    assert hub.refuse(1, "boom") == frames["exception"]


def test_the_vectors_name_every_operation() -> None:
    named = {entry["message"] for entry in GOLDEN["requests"]}
    assert named == {cls.__name__ for cls in ALL.values()}


def sample(op: str) -> dict[str, Any]:
    """A map with all the keys of an operation."""
    name = ALL[op].__name__
    entries = [entry for entry in GOLDEN["requests"] if entry["message"] == name]
    return dict(thawed(entries[-1]["keys"]))


KEYS = [(op, key) for op, cls in ALL.items() for key in cls.keys]


@pytest.mark.parametrize(("op", "key"), KEYS)
def test_a_missing_key_is_named(op: str, key: str) -> None:
    mapping = sample(op)
    del mapping[key]
    with pytest.raises(ProtocolError, match=f"^{op}: key '{key}' is missing$"):
        ALL[op].parse(mapping)


@pytest.mark.parametrize(("op", "key"), KEYS)
def test_a_mistyped_key_is_named(op: str, key: str) -> None:
    with pytest.raises(ProtocolError, match=f"^{op}: key '{key}' must be .*, not bool$"):
        ALL[op].parse({**sample(op), key: True})


@pytest.mark.parametrize("key", [k for k in SetWorkerSettings.settings if k != "hostler"])
def test_a_missing_setting_is_named(key: str) -> None:
    args = sample("set_worker_settings")["args"]
    del args[key]
    with pytest.raises(ProtocolError, match=f"args: key '{key}' is missing"):
        SetWorkerSettings.parse({"args": args})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("buffer_size", 0),
        ("buffer_size", 1.5),
        ("buffer_timeout", -1),
        ("buffer_timeout", float("nan")),
        ("buffer_timeout", float("inf")),
        ("max_line_length", "4096"),
        ("newline_re", b"\n"),
        ("hostler", []),
    ],
)
def test_a_mistyped_setting_is_named(key: str, value: object) -> None:
    args = {**sample("set_worker_settings")["args"], key: value}
    with pytest.raises(ProtocolError, match=f"args: key '{key}' must be"):
        SetWorkerSettings.parse({"args": args})


@pytest.mark.parametrize("op", ALL)
def test_keys_that_nobody_documented_are_ignored(op: str) -> None:
    """Buildbot's master sends `builder_name`, which its own documentation does not name."""
    assert ALL[op].parse({**sample(op), "builder_name": "b"}) == ALL[op].parse(sample(op))


@pytest.mark.parametrize("pairs", [[["rc"]], [["rc", 0, 1]], [[1, 0]], ["rc"], {"rc": 0}])
def test_update_pairs_are_checked(pairs: object) -> None:
    with pytest.raises(ProtocolError, match="list of \\[name, value\\] pairs"):
        messages.Update.parse({"command_id": "7", "args": pairs})


def test_no_operation_is_open_to_both_sides() -> None:
    assert not set(HUB_OPERATIONS) & set(AGENT_OPERATIONS)
    assert OPERATIONS[Role.AGENT] is HUB_OPERATIONS
    assert OPERATIONS[Role.HUB] is AGENT_OPERATIONS
