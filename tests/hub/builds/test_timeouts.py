"""How long a transfer may take, and may stand still; on a clock that the tests move."""

from __future__ import annotations

import asyncio
from typing import Any

from hostler_hub.builds.states import Interruption
from hostler_hub.builds.timeouts import StepTimeouts
from hostler_hub.runtime.virtual_clock import VirtualClock
from hostler_hub.specs.states import StepState
from hostler_hub.specs.step import StepSpec


def start(clock: VirtualClock, progress: list[int], **limits: Any) -> tuple[StepTimeouts, Any]:
    interrupt: asyncio.Future[Interruption] = asyncio.get_running_loop().create_future()
    step = StepSpec.model_validate({"name": "s", "upload": {"from": "f"}, **limits})
    return StepTimeouts(clock, step, interrupt, lambda: progress[0]), interrupt


async def test_silence_is_counted_from_the_last_progress() -> None:
    clock, progress = VirtualClock(), [0]
    patience, _ = start(clock, progress, timeout_s=10)
    for _ in range(5):
        clock.advance(9)
        progress[0] += 1
    clock.advance(9)
    assert not patience.over.done()
    clock.advance(11)
    why = patience.over.result()
    assert (why.state, why.failure_reason) == ("failure", "timeout_without_output")


async def test_time_is_counted_whatever_happens() -> None:
    clock, progress = VirtualClock(), [0]
    patience, _ = start(clock, progress, timeout_s=None, max_time_s=30)
    clock.advance(29)
    assert not patience.over.done()
    clock.advance(1)
    assert patience.over.result().failure_reason == "timeout"


async def test_an_interrupted_build_interrupts_its_step_once() -> None:
    clock, progress = VirtualClock(), [0]
    patience, interrupt = start(clock, progress, max_time_s=30)
    why = Interruption(StepState.CANCELLED, "interrupted", "enough")
    interrupt.set_result(why)
    assert await patience.over == why
    clock.advance(100)
    assert patience.over.result() == why


async def test_a_closed_one_is_over_for_nobody() -> None:
    clock, progress = VirtualClock(), [0]
    patience, interrupt = start(clock, progress, timeout_s=5, max_time_s=30)
    patience.close()
    interrupt.set_result(Interruption(StepState.CANCELLED, "interrupted", "enough"))
    await asyncio.sleep(0)
    clock.advance(100)
    assert not patience.over.done()
