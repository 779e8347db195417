"""A hub that was restored from a backup starts and ends nothing until a person confirms (P18)."""

from __future__ import annotations

import pytest
from given import (
    CHECK,
    DESTROY,
    IDLE,
    UPTIME,
    after,
    attached,
    changed,
    fired,
    hold_lifted,
    hub_stopping,
    in_hold,
    insubstantiating,
    latent,
    look_at,
    mode_set,
    policy,
    recovered,
    reloaded,
    substantiated,
    substantiating,
    unwanted,
    wanted,
)
from transitions import Case, verify

from hostler_hub.lifecycle import Mode
from hostler_hub.lifecycle.actions import INSUBSTANTIATING, LATENT, SUBSTANTIATED, SUBSTANTIATING
from hostler_hub.lifecycle.commands import Destroy, OfferSlots, SendAway

FREE = policy(hold=None)
STOPPED = "stopped by ann: because"

# fmt: off
CASES = [
    Case(in_hold(latent()), wanted(), LATENT, why="nothing is started"),
    Case(in_hold(latent()), hold_lifted(), LATENT, changed(policy=FREE), orders=[OfferSlots()]),
    Case(in_hold(substantiating()), hub_stopping(), SUBSTANTIATING, why="the next hub waits on"),
    Case(in_hold(substantiating()), unwanted(), SUBSTANTIATING, why="it is not stopped"),
    Case(in_hold(substantiating()), hold_lifted(), SUBSTANTIATING, changed(policy=FREE),
         orders=[OfferSlots()]),
    Case(in_hold(substantiated()), unwanted(), SUBSTANTIATED, why="nothing is stopped"),
    Case(in_hold(substantiated()), hub_stopping(), SUBSTANTIATED, why="it outlives the hub"),
    Case(in_hold(substantiated()), fired(IDLE, 602), SUBSTANTIATED,
         timers={CHECK: look_at(0), IDLE: 662}, why="asked again later"),
    Case(in_hold(substantiated(max_uptime_s=60)), fired(UPTIME, 62), SUBSTANTIATED,
         changed(retiring="it has been up for its 60 s"), why="it goes when the hold is over"),
    Case(in_hold(substantiated()), mode_set(Mode.STOPPED, 20), INSUBSTANTIATING,
         changed(mode=Mode.STOPPED, mode_reason="because", mode_by="ann", mode_at=20),
         timers={DESTROY: 80},
         orders=[SendAway("c1", STOPPED, for_good=False)], why="ordered, and not yet done"),
    Case(in_hold(substantiated()), hold_lifted(), SUBSTANTIATED, changed(policy=FREE),
         orders=[OfferSlots()]),
    Case(after(in_hold(substantiated(max_uptime_s=60)), fired(UPTIME, 62)),
         hold_lifted(70, max_uptime_s=60), INSUBSTANTIATING,
         changed(policy=policy(max_uptime_s=60), destroying=True), timers={},
         orders=[OfferSlots(), SendAway("c1", "it has been up for its 60 s"), Destroy("I0")],
         why="what the hold has kept"),
    Case(in_hold(reloaded(insubstantiating())), recovered(), INSUBSTANTIATING,
         timers={DESTROY: 1060}, why="the backup shows it as going; it is not ended yet"),
    Case(after(in_hold(reloaded(insubstantiating())), recovered()), attached(1010),
         INSUBSTANTIATING,
         orders=[SendAway("c1", "worker w does not expect this instance", for_good=False)],
         why="its agent may come back when people have decided"),
    Case(after(in_hold(reloaded(insubstantiating())), recovered()), fired(DESTROY, 1060),
         INSUBSTANTIATING, timers={DESTROY: 1120}, why="still in hold"),
    Case(after(in_hold(reloaded(insubstantiating())), recovered()), hold_lifted(2000),
         INSUBSTANTIATING, changed(policy=FREE, destroying=True), timers={},
         orders=[OfferSlots(), Destroy("I0")], why="at once"),
]
# fmt: on


@pytest.mark.parametrize("case", CASES, ids=str)
def test_P18_transition(case: Case) -> None:
    verify(case)
