"""Waits that grow from step to step: of quarantines, and of a destroy that fails."""

from __future__ import annotations

from given import (
    DESTROY,
    QUARANTINE,
    after,
    create_failed,
    created,
    destroy_failed,
    destroyed,
    drive,
    failures,
    fired,
    insubstantiating,
    latent,
    lease,
    mode_set,
    released,
    wanted,
)

from hostler_hub.lifecycle import Mode, Worker, commands, events


def fail_to_start(worker: Worker, at: float) -> tuple[Worker, list[commands.Command]]:
    """Wanted at ``at``, and its create call fails at once. Returns the worker, latent again, and
    what was ordered when the call failed."""
    starting = after(worker, wanted(at))
    assert starting.instance is not None
    instance = starting.instance.id
    failed, ordered = drive(
        starting, events.CreateFailed(at=at, instance=instance, error="no capacity")
    )
    return after(failed, events.Destroyed(at=at, instance=instance)), ordered


def test_P7_V13_a_quarantine_doubles_to_an_hour_and_ends() -> None:
    worker = latent()
    at, waits = 0.0, []
    for _ in range(12):
        worker, _ = fail_to_start(worker, at)
        assert after(worker, wanted(at)).instance is None
        waits.append(worker.timers[QUARANTINE] - at)
        at = worker.timers[QUARANTINE]
        worker, ordered = drive(worker, fired(QUARANTINE, at))
        assert ordered == [commands.OfferSlots()]
    assert waits == [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600]


def test_the_doubling_outlives_an_order_to_resume_and_ends_with_a_finished_build() -> None:
    worker, _ = fail_to_start(latent(), 0)
    worker, _ = fail_to_start(after(worker, mode_set(Mode.ACTIVE, 4)), 5)
    assert worker.quarantine_until == 25
    up = events.Attached(at=31, instance="I30", epoch=3, connection="c", resumable=True)
    resumed = after(worker, mode_set(Mode.ACTIVE, 26), wanted(30), up)
    built = after(resumed, lease(at=32), released(at=33), events.Unwanted(at=34, cause="rest"))
    worker, _ = fail_to_start(after(built, events.Destroyed(at=35, instance="I30")), 40)
    assert worker.quarantine_until == 50


def test_P8_people_are_told_of_the_second_failed_start_and_of_each_that_follows() -> None:
    worker, told = latent(), []
    for at in (0, 100, 200):
        worker, ordered = fail_to_start(after(worker, mode_set(Mode.ACTIVE, at)), at)
        told.append([each.detail for each in ordered if isinstance(each, commands.Notify)])
    assert told == [[], [failures(2, "no capacity")], [failures(3, "no capacity")]]
    assert worker.missing_since == 100


def test_P13_V13_a_failed_destroy_is_tried_for_ever_with_growing_waits() -> None:
    worker = insubstantiating()
    at, waits = 6.0, []
    for _ in range(12):
        worker = after(worker, destroy_failed(at))
        waits.append(worker.timers[DESTROY] - at)
        at = worker.timers[DESTROY]
        worker, ordered = drive(worker, fired(DESTROY, at))
        assert ordered == [commands.Destroy("I0")]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert worker.last_error == "busy"


def test_the_waits_of_the_next_instance_s_destroy_begin_anew() -> None:
    gone = after(insubstantiating(), destroy_failed(), fired(DESTROY, 7), destroy_failed(8))
    again = after(gone, destroyed(9), wanted(0), created(1), create_failed(2))
    assert again.destroy_attempts == 0
