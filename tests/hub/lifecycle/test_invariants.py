"""Each invariant is noticed when it is broken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from given import (
    ATTACH,
    CHECK,
    DESTROY,
    EXPECTS,
    IDLE,
    QUARANTINE,
    RECONNECT,
    after,
    asked,
    cut,
    examining,
    held,
    in_mode,
    insubstantiating,
    latent,
    leased,
    permanent,
    substantiated,
    substantiating,
    unfit_permanent,
)

from hostler_hub.lifecycle import (
    Gate,
    Instance,
    InvariantViolated,
    Mode,
    State,
    Worker,
    check,
    check_transition,
)


def without(worker: Worker, *timers: Any) -> Worker:
    left = {timer: at for timer, at in worker.timers.items() if timer not in timers}
    return replace(worker, timers=left)


WAITING = replace(after(latent(), asked()), timers={})
LIMITED = {"max_uptime_s": 60, "build_wait_timeout_s": -1}


@pytest.mark.parametrize(
    ("worker", "complaint"),
    [
        (replace(latent(), instance=Instance("I0", 0)), "V4 it has an instance exactly when"),
        (replace(substantiated(), instance=None), "V4 it has an instance exactly when"),
        (replace(substantiated(), epoch=2), "V4 its instance is of another epoch"),
        (replace(insubstantiating(), leases=("L0",)), "V9 leases without a substantiated"),
        (replace(leased(), leases=("L0", "L0")), "V5 one lease twice"),
        (replace(held(), leases=("L0",)), "V5 leased by a person, and by builds"),
        (replace(insubstantiating(), person=held().person), "V9 leased by a person without"),
        (replace(substantiating(), connection="c1"), "V4 an agent is attached to no instance"),
        (replace(cut(substantiated()), gate=Gate.ASKING), "V11 its machine is looked at"),
        (replace(leased(), mode=Mode.STOPPED), "V11 stopped, and up"),
        (replace(substantiating(), mode=Mode.STOPPED), "V11 stopped, and up"),
        (replace(substantiated(), mode=Mode.DRAINING), "V11 draining, without a lease, and up"),
        (replace(leased(), removing=True), "V11 being removed, and up"),
        (without(substantiating(), ATTACH), "V17 it starts without a deadline"),
        (without(cut(leased()), RECONNECT), "V17 it is lost without a deadline"),
        (without(substantiated(), IDLE), "V17 it is idle without a deadline"),
        (replace(insubstantiating(), destroying=False), "V17 it stops without trying"),
        (WAITING, "V17 it is promised to a person for ever"),
        (replace(substantiated(**LIMITED), timers={}), "V17 it is up for ever"),
        (
            replace(in_mode(latent(), Mode.PAUSED, until=50), timers={}),
            "V17 it holds an order beyond its end",
        ),
        (
            replace(unfit_permanent(), quarantine_until=None, timers={}),
            "V17 it is shut out for ever",
        ),
        (without(unfit_permanent(), QUARANTINE), "V17 it is quarantined for ever"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_worker_that_no_worker_may_be(worker: Worker, complaint: str) -> None:
    with pytest.raises(InvariantViolated, match=f"worker w: {complaint}"):
        check(worker)


@pytest.mark.parametrize(
    "worker",
    [
        without(substantiated(), CHECK),
        without(substantiated(build_wait_timeout_s=-1), IDLE),
        without(leased(), IDLE),
        replace(permanent(), timers={}),
        in_mode(leased(), Mode.DRAINING),
        in_mode(held(), Mode.DRAINING),
        replace(insubstantiating(), destroying=False, timers={DESTROY: 9}),
        replace(leased(**LIMITED), retiring="it has been up for its 60 s", timers={}),
    ],
    ids=[
        "not checked",
        "kept until the hub stops",
        "leased, not idle",
        "permanent",
        "draining builds",
        "draining a person",
        "a destroy that is tried again",
        "retiring",
    ],
)
def test_a_worker_that_may_well_be(worker: Worker) -> None:
    check(worker)


@pytest.mark.parametrize(
    ("before", "after_", "complaint"),
    [
        (examining(), replace(examining(), leases=("L0",)), "V11 worker w: leased before"),
        (
            unfit_permanent(),
            replace(unfit_permanent(), leases=("L0",)),
            "V11 worker w: leased before",
        ),
        (substantiated(), replace(substantiated(), epoch=0), "V4 worker w: epoch fell to 0"),
        (
            latent(),
            replace(substantiating(), epoch=0, instance=Instance("I0", 0)),
            "V4 worker w: a new instance without a new epoch",
        ),
        (
            latent(),
            replace(substantiating(), epoch=2, instance=Instance("I0", 2)),
            "V4 worker w: a new instance without a new epoch",
        ),
        (
            substantiated(),
            replace(substantiated(), epoch=2, instance=Instance("I1", 2)),
            "V3 worker w: an instance was replaced while it lived",
        ),
    ],
    ids=["asked", "shut", "epoch back", "epoch kept", "epoch skipped", "replaced"],
)
def test_a_step_that_no_step_may_be(before: Worker, after_: Worker, complaint: str) -> None:
    with pytest.raises(InvariantViolated, match=complaint):
        check_transition(before, after_)


def test_a_lease_that_was_there_goes_on_while_its_machine_is_examined() -> None:
    asking = replace(leased(expects=None), gate=Gate.ASKING)
    check_transition(asking, replace(asking, policy=replace(asking.policy, expects=EXPECTS)))


def test_a_complaint_tells_the_whole_worker() -> None:
    with pytest.raises(InvariantViolated, match=r"state=<State\.LATENT"):
        check(replace(latent(), instance=Instance("I0", 0), state=State.LATENT))
