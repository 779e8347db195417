"""The table of transitions is whole: each of its rows has cases, and what it lacks raises."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import replace
from itertools import product

import given
import pytest
import test_actions
import test_gate
import test_hold
import test_operator_leases
import test_orders
import test_recovery
from transitions import Case

from hostler_hub.lifecycle import (
    Gate,
    IllegalTransition,
    Instance,
    Mode,
    Presence,
    State,
    Timer,
    Worker,
    commands,
    events,
    step,
)
from hostler_hub.lifecycle.table import ROWS, TABLE, Key

CASES: list[Case] = [
    case
    for module in (
        test_actions,
        test_gate,
        test_hold,
        test_orders,
        test_operator_leases,
        test_recovery,
    )
    for case in module.CASES
]

# One event of each type, which speaks of instance I0, connection c1 and examination 1.
EVENTS: tuple[events.Event, ...] = (
    given.wanted(),
    given.unwanted(),
    given.created(),
    given.create_failed(),
    given.attached(),
    given.detached(),
    given.examined(),
    given.compromised(),
    given.refused(),
    given.lease(),
    given.released(),
    given.inspected(Presence.GONE),
    given.destroyed(),
    given.destroy_failed(),
    given.forgotten(),
    given.asked(),
    given.renewed(),
    given.left(),
    given.mode_set(Mode.PAUSED),
    given.redefined(),
    given.removed(),
    given.hold_lifted(),
    given.recovered(),
    given.hub_stopping(),
    *(given.fired(timer, 10) for timer in Timer),
)


def key(state: State, event: events.Event) -> Key:
    return state, type(event), getattr(event, "timer", None)


def test_every_row_has_a_case_for_each_state_that_it_leads_to() -> None:
    shown = {(*key(case.given.state, case.event), case.to) for case in CASES}
    needed = {(row.state, row.event, row.timer, to) for row in ROWS for to in row.to}
    assert needed - shown == set()


def test_every_case_has_a_name_of_its_own() -> None:
    assert [name for name, times in Counter(map(str, CASES)).items() if times > 1] == []


def test_no_pair_stands_twice() -> None:
    assert len(ROWS) == len(TABLE)


@pytest.mark.parametrize("state", State)
def test_every_state_has_a_way_out(state: State) -> None:
    assert any(set(row.to) - {state} for row in ROWS if row.state is state)


def test_every_type_of_event_is_tried() -> None:
    types = {each for each in vars(events).values() if isinstance(each, type)}
    tried = {type(event) for event in EVENTS}
    assert {each for each in types if issubclass(each, events.Event)} - tried == {events.Event}


ABSENT = [
    (state, event) for state, event in product(State, EVENTS) if key(state, event) not in TABLE
]


def concerned(state: State, event: events.Event) -> Worker:
    """A worker in ``state`` of which ``event`` speaks, whether it could be so or not."""
    timer = getattr(event, "timer", None)
    return replace(
        given.latent(),
        state=state,
        instance=Instance("I0", 1),
        epoch=1,
        connection="c1",
        gate=Gate.ASKING,
        exam=1,
        timers={} if timer is None else {timer: event.at},
    )


@pytest.mark.parametrize(
    ("state", "event"),
    ABSENT,
    ids=[f"{state} + {getattr(event, 'timer', type(event).__name__)}" for state, event in ABSENT],
)
def test_a_pair_that_the_table_does_not_have_raises(state: State, event: events.Event) -> None:
    what = rf"worker w in state {state} cannot take {type(event).__name__}"
    with pytest.raises(IllegalTransition, match=what):
        step(concerned(state, event), event)


WORKERS = (
    given.latent(),
    given.substantiating(),
    given.substantiated(),
    given.leased(),
    given.in_mode(given.leased(), Mode.DRAINING),
    given.insubstantiating(),
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_P18_no_event_starts_or_ends_anything_in_a_hold(event: events.Event) -> None:
    if isinstance(event, events.HoldLifted):
        return
    for worker in map(given.in_hold, map(given.reloaded, WORKERS)):
        ordered: list[commands.Command] = []
        with contextlib.suppress(IllegalTransition):  # what is refused orders nothing either
            _, ordered = step(worker, event)
        assert not any(isinstance(each, commands.Create | commands.Destroy) for each in ordered)
        assert not any(isinstance(each, commands.SendAway) and each.for_good for each in ordered)
