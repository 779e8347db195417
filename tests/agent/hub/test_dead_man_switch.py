"""P17: an agent that has lost its hub for good ends its instance."""

from __future__ import annotations

import asyncio

from hostler_agent.hub.dead_man_switch import DeadManSwitch


class Watched:
    """A switch, and whether it has gone off."""

    def __init__(self, clock: object, timeout_s: float) -> None:
        self.idle = True
        self.switch = DeadManSwitch(clock, timeout_s, lambda: self.idle)
        self.task = asyncio.create_task(self.switch.watch())


async def test_P17_it_goes_off_when_the_hub_was_silent_for_too_long(clock) -> None:
    watched = Watched(clock, 1800)
    await clock.advance(1700)
    watched.switch.contacted(clock.now() - 10)
    await clock.advance(1700)
    assert not watched.task.done()
    await clock.advance(91)
    assert watched.task.done()


async def test_P17_a_running_command_is_waited_for(clock) -> None:
    watched = Watched(clock, 1800)
    watched.idle = False
    await clock.advance(5000)
    assert not watched.task.done()
    watched.idle = True
    await clock.advance(31)
    assert watched.task.done()


async def test_P17_suspension_counts(clock) -> None:
    watched = Watched(clock, 1800)
    await clock.advance(1)
    clock.jump(5000)
    await clock.advance(31)
    assert watched.task.done()


async def test_zero_means_never(clock) -> None:
    watched = Watched(clock, 0)
    await clock.advance(100_000)
    assert not watched.task.done()
    watched.task.cancel()
