"""The hub's own timeouts for steps whose commands have none in the protocol: transfers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hostler_hub.builds.states import Interruption
from hostler_hub.runtime.clock import Clock, Timer
from hostler_hub.specs.states import StepState
from hostler_hub.specs.step import StepSpec


class StepTimeouts:
    """Resolves ``over`` when the build is interrupted, or when one of the step's
    timeouts has passed.

    ``progress`` returns a number that changes as long as the step makes progress; if it stays the
    same for the step's ``timeout_s``, the step is over.
    """

    def __init__(
        self,
        clock: Clock,
        step: StepSpec,
        interrupt: asyncio.Future[Interruption],
        progress: Callable[[], int],
    ) -> None:
        self.over: asyncio.Future[Interruption] = asyncio.get_running_loop().create_future()
        self._clock = clock
        self._interrupt = interrupt
        self._progress = progress
        self._silence_s = step.timeout_s
        self._deadline: Timer | None = None
        self._look: Timer | None = None
        interrupt.add_done_callback(self._interrupted)
        if step.max_time_s is not None:
            text = f"it took longer than {step.max_time_s:g} s"
            late = Interruption(StepState.FAILURE, "timeout", text)
            self._deadline = clock.call_after(step.max_time_s, lambda: self._end(late))
        self._watch_silence()

    def close(self) -> None:
        self._interrupt.remove_done_callback(self._interrupted)
        for timer in (self._deadline, self._look):
            if timer is not None:
                timer.cancel()

    def _interrupted(self, interrupt: asyncio.Future[Interruption]) -> None:
        if not interrupt.cancelled():
            self._end(interrupt.result())

    def _end(self, why: Interruption) -> None:
        if not self.over.done():
            self.over.set_result(why)

    def _watch_silence(self) -> None:
        if self._silence_s is None:
            return
        before, silence_s = self._progress(), self._silence_s

        def look() -> None:
            if self._progress() != before:
                self._watch_silence()
                return
            text = f"nothing came for {silence_s:g} s"
            self._end(Interruption(StepState.FAILURE, "timeout_without_output", text))

        self._look = self._clock.call_after(silence_s, look)
