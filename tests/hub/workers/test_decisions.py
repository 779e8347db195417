"""Why an event happened, in words, for every event that there is."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from hostler_hub.lifecycle import events
from hostler_hub.lifecycle.model import OperatorLease
from hostler_hub.workers.decisions import cause_of

GIVEN = ("cause", "error", "evidence", "reason", "by", "timer")
EVENTS = [
    each
    for each in vars(events).values()
    if isinstance(each, type) and issubclass(each, events.Event) and each is not events.Event
]
ASKED = events.PersonAsked(at=1.0, lease=OperatorLease("L", "ann", 1.0, 100.0, 60.0, "debug"))


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_an_event_is_explained_by_the_first_words_it_has(kind: Any) -> None:
    if kind is events.PersonAsked:
        assert cause_of(ASKED) == "ann asks for it: debug"
        return
    names = [each.name for each in fields(kind)]
    event = kind(**{name: f"the {name}" for name in names})
    expected = [f"the {name}" for name in GIVEN if name in names]
    assert cause_of(event) == (expected[0] if expected else kind.__name__)


def test_without_words_it_is_explained_by_its_name() -> None:
    assert cause_of(events.Unwanted(at=1.0, cause="")) == "Unwanted"
