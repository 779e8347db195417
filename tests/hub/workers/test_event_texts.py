"""What an agent or a provider says of a worker is harmless once it is the worker's own text."""

from __future__ import annotations

from hostler_hub.lifecycle import events
from hostler_hub.workers.event_texts import escape_texts


def test_the_texts_of_an_event_are_escaped() -> None:
    detached = events.Detached(at=1.0, connection="c", cause="\x1b[2Jbye")
    assert escape_texts(detached).cause == "\\x1b[2Jbye"
    failed = events.DestroyFailed(at=1.0, instance="i", error="no\x9b31m")
    assert escape_texts(failed).error == "no\\x9b31m"


def test_a_printable_one_stays_the_same_object() -> None:
    detached = events.Detached(at=1.0, connection="c", cause="closed")
    assert escape_texts(detached) is detached
    assert escape_texts(events.Recovered(at=1.0)) == events.Recovered(at=1.0)
