"""Each who waits is woken, also when another gave up before."""

from __future__ import annotations

from hostler_hub.runtime.waiters import Waiters


def test_all_who_wait_for_a_name_are_woken_and_no_others() -> None:
    waiters: Waiters[str] = Waiters()
    with waiters.waiting("a") as first, waiters.waiting("a") as second, waiters.waiting("b") as b:
        waiters.wake("a")
        assert (first.is_set(), second.is_set(), b.is_set()) == (True, True, False)


def test_one_who_gives_up_takes_nothing_from_the_others_and_leaves_nothing() -> None:
    waiters: Waiters[str] = Waiters()
    with waiters.waiting("a") as patient:
        with waiters.waiting("a"):
            pass
        waiters.wake("a")
        assert patient.is_set()
    waiters.wake("a")
    assert len(waiters) == 0
