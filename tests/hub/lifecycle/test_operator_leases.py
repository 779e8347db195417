"""Leases of people in the core: who gets the worker when, and what becomes of it afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_step import (
    attached,
    drive,
    fired,
    insubstantiating,
    kinds,
    latent,
    leased,
    mode,
    released,
    substantiated,
    substantiating,
    wanted,
)

from hostler_hub.lifecycle import (
    IllegalTransition,
    Mode,
    OperatorLease,
    Presence,
    State,
    Timer,
    Worker,
    commands,
    events,
)
from hostler_hub.lifecycle.model import why_not_leasable, why_not_startable


def asked(at: float = 5, *, wait_s: float = 60, keep: bool = False) -> events.PersonAsked:
    lease = OperatorLease("P1", "ann", at, at + wait_s, ttl_s=300, reason="debugging", keep=keep)
    return events.PersonAsked(at=at, lease=lease)


def left(at: float = 50, *, keep: bool | None = None) -> events.PersonLeft:
    return events.PersonLeft(at=at, lease="P1", cause="released", keep=keep)


def held(*, keep: bool = False, **policy: Any) -> Worker:
    return drive(substantiated(**policy), asked(keep=keep))[0]


def over(ordered: list[commands.Command]) -> str | None:
    """Why a lease is over, by what people are told."""
    told = [command for command in ordered if isinstance(command, commands.TellPerson)]
    return told[-1].over if told else None


def permanent() -> Worker:
    came = replace(attached(2), epoch=None, instance="I0")
    return drive(latent(permanent=True), came)[0]


# --- taking it -----------------------------------------------------------------------------------


def test_an_idle_worker_is_given_at_once_and_is_no_longer_idle() -> None:
    worker, ordered = drive(substantiated(), asked())
    assert worker.person is not None
    assert (worker.person.granted_at, worker.person.until) == (5, 305)
    assert Timer.IDLE not in worker.timers
    assert worker.timers[Timer.PERSON] == 305
    assert "TellPerson" in kinds(ordered)


def test_V5_builds_are_waited_for_and_none_follows_them() -> None:
    worker, _ = drive(leased(leases=1), asked())
    assert worker.person is not None
    assert not worker.person.granted
    assert why_not_leasable(worker) == "ann waits to lease it: debugging"  # though a slot is free
    with pytest.raises(IllegalTransition, match="ann waits"):
        drive(worker, events.Leased(at=6, lease="L9"))
    worker, _ = drive(worker, released(at=9))
    assert worker.person is not None
    assert worker.person.granted_at == 9
    assert why_not_leasable(worker) == ("it is leased by ann until 1970-01-01 00:05 UTC: debugging")


def test_a_latent_worker_is_started_for_a_person_and_for_no_build() -> None:
    worker, ordered = drive(latent(), asked())
    assert "OfferSlots" in kinds(ordered)
    assert why_not_startable(worker) == "ann waits to lease it: debugging"
    worker, _ = drive(worker, wanted(6))
    assert worker.state is State.SUBSTANTIATING
    here = replace(attached(8), instance="I6")
    worker, _ = drive(worker, here)
    assert worker.person is not None
    assert worker.person.granted_at == 8


def test_a_slot_that_did_not_come_back_clean_is_replaced_before_a_person_gets_it() -> None:
    worker, ordered = drive(leased(), asked(), released(clean=False))
    assert worker.state is State.INSUBSTANTIATING
    assert worker.person is not None
    worker, ordered = drive(worker, events.Destroyed(at=10, instance="I0"))
    assert "OfferSlots" in kinds(ordered)
    assert worker.timers[Timer.PERSON] == 65


@pytest.mark.parametrize("value", [Mode.PAUSED, Mode.DRAINING, Mode.STOPPED])
def test_V11_no_person_gets_a_worker_that_is_not_active(value: Mode) -> None:
    with pytest.raises(IllegalTransition, match=value.value):
        drive(substantiated(), mode(value, 3), asked())
    waiting, _ = drive(leased(), asked(), mode(Mode.PAUSED, 6), released(at=9))
    assert waiting.person is not None
    assert not waiting.person.granted
    resumed, _ = drive(waiting, mode(Mode.ACTIVE, 12))
    assert resumed.person is not None
    assert resumed.person.granted_at == 12


def test_V5_of_two_people_one_gets_it() -> None:
    with pytest.raises(IllegalTransition, match="leased by ann"):
        drive(held(), asked(7))


def test_who_waits_in_vain_is_told_and_the_builds_go_on() -> None:
    worker, ordered = drive(leased(), asked(), fired(Timer.PERSON, 65))
    assert worker.person is None
    assert worker.leases == ("L0",)
    assert over(ordered) == "not free within 60 s"
    assert "OfferSlots" in kinds(ordered)


# --- having it -----------------------------------------------------------------------------------


def test_V9_a_person_s_instance_is_not_stopped_unasked() -> None:
    for event in (
        events.Unwanted(at=6, cause="nobody"),
        events.HubStopping(at=6),
        mode(Mode.PAUSED, 6),
        mode(Mode.DRAINING, 6),
        events.Redefined(at=6, policy=held().policy, restart=True),
    ):
        worker, _ = drive(held(), event)
        assert worker.state is State.SUBSTANTIATED, event
        assert worker.person is not None
        assert Timer.IDLE not in worker.timers


def test_a_person_may_stop_the_agent_for_as_long_as_they_like() -> None:
    gone = events.Detached(at=10, connection="c1", cause="cut")
    worker, _ = drive(held(), gone, fired(Timer.RECONNECT, 340))
    assert worker.state is State.SUBSTANTIATED
    assert worker.missing_since is None
    assert worker.timers[Timer.RECONNECT] == 670
    worker, _ = drive(worker, attached(350, connection="c2"))
    assert worker.person is not None
    assert Timer.IDLE not in worker.timers


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (mode(Mode.STOPPED), "stopped by ann: because"),
        (events.Removed(at=20, by="bob"), "removed by bob"),
        (events.Compromised(at=20, instance="I0", cause="used twice"), "used twice"),
        (
            events.Inspected(at=20, instance="I0", presence=Presence.GONE, evidence="exit 137"),
            "its instance is gone: exit 137",
        ),
    ],
    ids=["stopped", "removed", "compromised", "gone"],
)
def test_loss_and_orders_end_it_and_say_why(event: events.Event, why: str) -> None:
    worker, ordered = drive(held(), event)
    assert worker.person is None
    assert over(ordered) == why


def test_renewed_it_lasts_from_now_and_a_stale_id_changes_nothing() -> None:
    again = events.PersonRenewed(at=100, lease="P1", until=700, ttl_s=600, reason="more", by="ann")
    worker, _ = drive(held(), again)
    assert worker.person is not None
    assert (worker.person.until, worker.person.reason) == (700, "more")
    assert drive(worker, fired(Timer.PERSON, 305))[0] == worker
    assert drive(worker, replace(again, lease="P0", until=9999))[0] == worker
    assert drive(worker, replace(left(), lease="P0"))[0] == worker


# --- giving it back ------------------------------------------------------------------------------


def test_V10_what_a_person_used_is_replaced() -> None:
    worker, ordered = drive(held(), left())
    assert worker.state is State.INSUBSTANTIATING
    assert {"SendAway", "Destroy"} <= set(kinds(ordered))
    assert over(ordered) == "released"
    assert worker.quarantine_until is None


def test_unless_they_keep_it_and_then_it_is_idle_like_any_other() -> None:
    for worker, event in ((held(keep=True), left()), (held(), left(keep=True))):
        after, ordered = drive(worker, event)
        assert after.state is State.SUBSTANTIATED
        assert after.timers[Timer.IDLE] == 650
        assert why_not_leasable(after) is None
        assert "OfferSlots" in kinds(ordered)


def test_it_expires_by_itself() -> None:
    worker, ordered = drive(held(), fired(Timer.PERSON, 305))
    assert worker.state is State.INSUBSTANTIATING
    assert over(ordered) == "expired"


def test_a_drained_worker_goes_when_the_person_does_also_if_it_is_kept() -> None:
    worker, _ = drive(held(keep=True), mode(Mode.DRAINING), left())
    assert worker.state is State.INSUBSTANTIATING


def test_a_permanent_worker_s_machine_is_its_owner_s() -> None:
    worker, _ = drive(permanent(), asked(), left())
    assert worker.state is State.SUBSTANTIATED
    gone = events.Detached(at=10, connection="c1", cause="reboot")
    away, _ = drive(permanent(), asked(), gone)
    assert away.person is not None
    after, _ = drive(away, left())
    assert after.state is State.LATENT
    assert Timer.MISSING in after.timers


# --- a hub's end ---------------------------------------------------------------------------------


def reloaded(worker: Worker) -> Worker:
    return replace(worker, connection=None, resumable=False, timers={}, destroying=False)


def test_V12_a_lease_survives_the_hub_and_can_still_be_renewed_when_it_ran_out_meanwhile() -> None:
    for at, until in ((100, 305), (300, 360), (1000, 1060)):
        worker, _ = drive(reloaded(held()), events.Recovered(at=at))
        assert worker.person is not None
        assert worker.person.until == until
        assert worker.timers[Timer.PERSON] == until


@pytest.mark.parametrize(
    "worker", [latent(), substantiating(), leased(), insubstantiating()], ids=lambda w: w.state
)
def test_V17_who_waits_waits_no_longer_than_they_said_whatever_happens(worker: Worker) -> None:
    waiting, _ = drive(worker, asked())
    again, _ = drive(reloaded(waiting), events.Recovered(at=30))
    for one in (waiting, again):
        assert one.timers[Timer.PERSON] == 65
        assert drive(one, fired(Timer.PERSON, 65))[0].person is None
