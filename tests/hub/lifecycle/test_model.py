"""What is derived from a worker's facts: whether it may be started, how much is left of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from given import (
    asked,
    cut,
    examining,
    held,
    in_mode,
    insubstantiating,
    latent,
    leased,
    permanent,
    quarantined,
    substantiated,
    substantiating,
)

from hostler_hub.lifecycle import Mode, Worker
from hostler_hub.lifecycle.model import is_sound, why_no_instance, why_not_startable


@pytest.mark.parametrize(
    ("worker", "why"),
    [
        (latent(), None),
        (latent(permanent=True), "it is started by its owner and is not attached"),
        (insubstantiating(), "its last instance is still being stopped"),
        (in_mode(latent(), Mode.PAUSED), "it is paused: because"),
        (replace(latent(), mode=Mode.STOPPED), "it is stopped"),
        (quarantined(latent()), "it is quarantined: 504"),
        (replace(latent(), removing=True), "it is being removed"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_V11_why_no_instance_may_be_started(worker: Worker, why: str | None) -> None:
    assert why_no_instance(worker) == why
    assert why_not_startable(worker) == why
    waiting = replace(worker, person=asked().lease)
    assert why_no_instance(waiting) == why
    assert why_not_startable(waiting) == "ann waits to lease it: debugging"


@pytest.mark.parametrize(
    ("worker", "sound"),
    [
        (substantiated(), True),
        (cut(substantiated()), True),
        (permanent(), True),
        (in_mode(substantiated(), Mode.PAUSED), True),
        (leased(), False),
        (held(), False),
        (replace(substantiated(), removing=True), False),
        (replace(substantiated(), tainted=True), False),
        (quarantined(substantiated()), False),
        (examining(), False),
        (replace(substantiated(), retiring="it was defined anew"), False),
        (replace(leased(max_uses=1), leases=()), False),
        (replace(leased(max_uses=2), leases=()), True),
    ],
    ids=[
        "idle",
        "not attached",
        "permanent",
        "paused",
        "leased",
        "held by a person",
        "being removed",
        "tainted",
        "quarantined",
        "being examined",
        "retiring",
        "used up",
        "a use left",
    ],
)
def test_whether_its_machine_could_be_used_again(worker: Worker, sound: bool) -> None:
    assert is_sound(worker) is sound


@pytest.mark.parametrize(
    ("worker", "uses", "slots"),
    [
        (substantiating(max_builds=3), 3, 3),
        (leased(leases=2, max_builds=3), 3, 1),
        (replace(leased(leases=2), policy=latent(max_builds=1).policy), 1, 0),
        (leased(max_uses=1), 0, 0),
        (leased(max_uses=2), 1, 1),
        (leased(leases=2, max_uses=9), 7, 0),
        (replace(leased(leases=2), policy=latent(max_uses=1).policy), 0, 0),
    ],
    ids=[
        "no limit on uses",
        "a slot left",
        "fewer slots than leases",
        "used up",
        "a use and a slot left",
        "uses left, and no slot",
        "fewer uses than leases",
    ],
)
def test_how_much_is_left_of_an_instance(worker: Worker, uses: int, slots: int) -> None:
    assert (worker.uses_left, worker.free_slots) == (uses, slots)
