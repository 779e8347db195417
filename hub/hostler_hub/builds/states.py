"""Which step of a build runs next, and what the build's result is: decided without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hostler_hub.specs.build import StepSpec
from hostler_hub.specs.states import BuildState, StepState

_FAILED = frozenset({StepState.FAILURE, StepState.EXCEPTION})


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """How a step ended.

    ``clean``: its receipt names no surviving process (V10). ``survivors``: the processes it names,
    as text for people; an agent that does not answer names none. ``result``: what the step's kind
    returned, as plain JSON.
    """

    state: StepState
    rc: int | None = None
    failure_reason: str | None = None
    text: str | None = None
    clean: bool = True
    survivors: tuple[str, ...] = ()
    result: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Interruption:
    """Why a build or a step is to end early, and the state in which it then ends."""

    state: StepState
    failure_reason: str
    text: str


def next_step(steps: Sequence[StepSpec], states: Sequence[StepState]) -> int | None:
    """The index of the step to run now, or None when the build is over.

    After a cancelled step, or a failed one with ``halt_on_failure``, only ``always_run``
    steps follow. A step in state running is returned again, since it is resumed after a
    restart of the hub.
    """
    halted = any(
        state == StepState.CANCELLED or (state in _FAILED and spec.halt_on_failure)
        for spec, state in zip(steps, states, strict=True)
    )
    for index, (spec, state) in enumerate(zip(steps, states, strict=True)):
        may_begin = spec.always_run or not halted
        if state == StepState.RUNNING or (state == StepState.PENDING and may_begin):
            return index
    return None


def result_of(
    steps: Sequence[StepSpec], outcomes: Sequence[StepOutcome]
) -> tuple[BuildState, str | None]:
    """The build's state, which is that of its worst step, and one sentence about this step
    (None on success).
    """
    for worst in (StepState.EXCEPTION, StepState.CANCELLED, StepState.FAILURE):
        for spec, outcome in zip(steps, outcomes, strict=True):
            if outcome.state == worst:
                return BuildState(worst.value), _sentence(spec, outcome)
    return BuildState.SUCCESS, None


def _sentence(spec: StepSpec, outcome: StepOutcome) -> str:
    if outcome.text:
        return f"step {spec.name}: {outcome.text}"
    if outcome.failure_reason:
        return f"step {spec.name}: {outcome.failure_reason} (rc {outcome.rc})"
    return f"step {spec.name} ended with rc {outcome.rc}"
