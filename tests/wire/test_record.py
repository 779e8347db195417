from __future__ import annotations

import dataclasses

import pytest

from hostler_agent.wire.extension import Handshake
from hostler_agent.wire.messages import GetWorkerInfo, InterruptCommand, Keepalive, Print


def test_equal_is_the_same_class_with_the_same_fields() -> None:
    assert Print("a") == Print("a")
    assert Print("a") != Print("b")
    assert Keepalive() != GetWorkerInfo()
    assert Print("a") != "a"
    assert len({Print("a"), Print("a"), Print("b"), Keepalive(), GetWorkerInfo()}) == 4


def test_it_prints_what_may_be_shown() -> None:
    assert repr(InterruptCommand("7", "why")) == "InterruptCommand(command_id='7', why='why')"
    assert repr(Handshake("w1", "s3cret", "s3cret")) == (
        "Handshake(name='w1', instance=None, epoch=None)"
    )


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Print("a").message = "b"  # type: ignore[misc]
