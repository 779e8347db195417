"""What ``step()`` itself does: it drops stale events, and refuses what the table does not have."""

from __future__ import annotations

from dataclasses import replace

import pytest
from given import (
    CHECK,
    DESTROY,
    IDLE,
    PERSON,
    after,
    attached,
    came,
    compromised,
    create_failed,
    created,
    cut,
    destroy_failed,
    destroyed,
    detached,
    examined,
    examining,
    fired,
    forgotten,
    held,
    in_mode,
    inspected,
    insubstantiating,
    latent,
    leased,
    permanent,
    renewed,
    substantiated,
    substantiating,
    unwanted,
)

from hostler_hub.lifecycle import (
    IllegalTransition,
    Mode,
    Presence,
    State,
    Worker,
    commands,
    events,
    step,
)
from hostler_hub.lifecycle.table import TABLE


@pytest.mark.parametrize(
    "event",
    [
        replace(created(9), instance="OLD"),
        replace(create_failed(9), instance="OLD"),
        replace(inspected(Presence.GONE), instance="OLD"),
        replace(destroyed(9), instance="OLD"),
        replace(destroy_failed(9), instance="OLD"),
        replace(forgotten(9), instance="OLD"),
        replace(compromised(9), instance="OLD"),
        replace(detached(9), connection="old"),
        examined(9),
        fired(DESTROY, 9),
    ],
    ids=lambda event: type(event).__name__,
)
@pytest.mark.parametrize(
    "worker",
    [latent(), substantiating(), leased(), insubstantiating()],
    ids=lambda worker: worker.state,
)
def test_P11_what_speaks_of_an_older_instance_changes_nothing(
    worker: Worker, event: events.Event
) -> None:
    assert step(worker, event) == (worker, [])


@pytest.mark.parametrize(
    ("worker", "event"),
    [
        (after(leased(), attached(6, connection="c2")), detached(7)),
        (after(insubstantiating(), destroyed()), destroy_failed(7)),
        (after(examining(), attached(3, connection="c2")), examined(1, at=4)),
        (after(examining(), detached(3)), examined(1, at=4, met=False)),
        (after(examining(), examined()), examined(1, at=4, met=False)),
        (in_mode(examining(), Mode.STOPPED), examined(1, at=21, met=False)),
        (substantiated(build_wait_timeout_s=5), fired(IDLE, 6.9)),
        (after(held(), renewed()), fired(PERSON, 305)),
        (leased(), fired(IDLE, 602)),
    ],
    ids=[
        "the end of a connection that was replaced (A4)",
        "a failed destroy of an instance that is proven gone (P13)",
        "an answer about who was attached before",
        "an answer about an agent that has died (A6)",
        "a second answer",
        "an answer after the order to go (A2)",
        "idle, a moment before the timeout (M03)",
        "the end of a lease that was renewed",
        "idle, when a lease had stopped the countdown",
    ],
)
def test_what_is_overtaken_changes_nothing(worker: Worker, event: events.Event) -> None:
    assert step(worker, event) == (worker, [])


@pytest.mark.parametrize(
    ("worker", "event"),
    [
        (substantiating(), attached(instance="OLD", epoch=0)),
        (substantiating(), attached(epoch=2)),
        (leased(), attached(9, instance="OLD", connection="c9")),
        (after(substantiating(), unwanted(1)), attached(instance="OLD", epoch=0)),
        (latent(), attached()),
    ],
    ids=["instance and epoch", "epoch", "instance", "while it stops", "no instance"],
)
def test_A3_a_stale_agent_is_sent_away_and_changes_nothing(
    worker: Worker, event: events.Attached
) -> None:
    reason = f"instance {event.instance}, epoch {event.epoch}, of w is over"
    assert step(worker, event) == (worker, [commands.SendAway(event.connection, reason)])


def test_a_permanent_worker_s_agent_has_no_epoch_and_is_never_stale() -> None:
    back = came(110, instance="another", connection="c2")
    assert after(cut(permanent()), back).connection == "c2"


def test_an_event_is_due_at_its_timer_s_very_instant() -> None:
    worker = replace(substantiated(), timers={CHECK: 50.0, IDLE: 602})
    assert commands.Inspect("I0") in step(worker, fired(CHECK, 50.0))[1]


def test_a_row_that_is_left_by_a_door_it_does_not_have_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = (State.LATENT, events.Wanted, None)
    monkeypatch.setitem(TABLE, key, replace(TABLE[key], to=(State.LATENT,)))
    with pytest.raises(IllegalTransition, match="by leading to substantiating"):
        substantiating()
