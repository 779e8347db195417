"""Which steps of a worker are worth rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hostler_hub.lifecycle import (
    Instance,
    Mode,
    OperatorLease,
    Policy,
    Presence,
    State,
    Timer,
    Worker,
    commands,
    events,
)
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.workers.decisions import Transition, of_transition
from hostler_hub.workers.registry import Entry
from hostler_hub.workers.transition import PendingTransition

LIFE = Worker(
    "w",
    Policy(),
    state=State.SUBSTANTIATED,
    epoch=1,
    instance=Instance("I", 1, {}),
    connection="c",
)
PERSON = OperatorLease("P1", "ann", 0, 60, 300)
QUIET = events.Inspected(at=9, instance="I", presence=Presence.RUNNING, evidence="")


def advance(
    event: events.Event = QUIET, *, ordered: tuple[commands.Command, ...] = (), **changes: Any
) -> PendingTransition:
    definition = WorkerDefinition.model_validate({"name": "w", "driver": "fake"})
    after = replace(LIFE, **changes)
    transition = Transition(event, LIFE, after, ordered)
    return PendingTransition(
        Entry(definition, LIFE, revision=1),
        event,
        LIFE,
        after,
        list(ordered),
        (),
        None,
        transition,
        of_transition(transition),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"timers": {Timer.CHECK: 60.0}},
        {"connection": "c2", "resumable": True},
        {"exam": 2},
        {"destroying": True},
        {"leases": ("L0",)},
    ],
    ids=["nothing", "timers", "connection", "examination", "a call in progress", "leases"],
)
def test_what_lives_only_as_long_as_the_hub_is_worth_no_row(changes: dict[str, Any]) -> None:
    """Leases have rows of their own, which their builds' writes change."""
    assert not advance(**changes).persists


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": Mode.PAUSED},
        {"mode_until": 50.0},
        {"instance": Instance("I", 1, {"pid": 4})},
        {"quarantine_until": 50.0},
        {"missing_since": 9.0},
        {"failed_starts": 1},
        {"uses": 1},
        {"retiring": "it was defined anew"},
        {"tainted": True},
        {"removing": True},
        {"destroy_attempts": 1},
        {"backoff_s": 10.0},
        {"last_error": "busy"},
        {"person": PERSON},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_the_next_hub_has_to_know_is_worth_a_row(changes: dict[str, Any]) -> None:
    assert advance(**changes).persists


@pytest.mark.parametrize(
    "event",
    [
        events.Refused(at=9, cause="wrong password"),
        events.Examined(at=9, exam=1, met=True, cause="as expected"),
        events.Leased(at=9, lease="L0"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_some_events_are_worth_a_row_where_they_change_nothing_that_is_stored(
    event: events.Event,
) -> None:
    assert advance(event, leases=("L0",)).persists


def test_a_worker_that_is_forgotten_leaves_rows() -> None:
    forgotten = advance(ordered=(commands.Forget(),))
    assert forgotten.forgets
    assert forgotten.persists
    assert not advance(ordered=(commands.OfferSlots(),)).forgets
