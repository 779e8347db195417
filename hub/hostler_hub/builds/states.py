"""The course of a build, decided without I/O: which step is next, and what came of it all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hostler_hub.specs.build import StepSpec

PENDING = "pending"
RUNNING = "running"
SUCCESS = "success"
FAILURE = "failure"
EXCEPTION = "exception"
CANCELLED = "cancelled"
SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """How a step ended. ``clean`` is V10's: its receipt names no survivor.

    ``survivors`` are those that it names, for people; an agent that does not answer names none.
    ``result`` is what the step's kind brought, as plain JSON.
    """

    state: str
    rc: int | None = None
    failure_reason: str | None = None
    text: str | None = None
    clean: bool = True
    survivors: tuple[str, ...] = ()
    result: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Interruption:
    """Why something is to end before its time, and what it then counts as."""

    state: str
    failure_reason: str
    text: str


def next_step(steps: Sequence[StepSpec], states: Sequence[str]) -> int | None:
    """The index of the step to run now, or None when the build is over.

    A failed step that halts lets only ``always_run`` steps follow; a running step is the next one
    still (after a restart of the hub it is taken up).
    """
    halted = any(
        state == CANCELLED or (state in {FAILURE, EXCEPTION} and spec.halt_on_failure)
        for spec, state in zip(steps, states, strict=True)
    )
    for index, (spec, state) in enumerate(zip(steps, states, strict=True)):
        if state == RUNNING or (state == PENDING and (spec.always_run or not halted)):
            return index
    return None


def result_of(steps: Sequence[StepSpec], outcomes: Sequence[StepOutcome]) -> tuple[str, str | None]:
    """The build's state and one sentence about it: the worst of its steps."""
    for worst in (EXCEPTION, CANCELLED, FAILURE):
        for spec, outcome in zip(steps, outcomes, strict=True):
            if outcome.state == worst:
                return worst, _sentence(spec, outcome)
    return SUCCESS, None


def _sentence(spec: StepSpec, outcome: StepOutcome) -> str:
    if outcome.text:
        return f"step {spec.name}: {outcome.text}"
    if outcome.failure_reason:
        return f"step {spec.name}: {outcome.failure_reason} (rc {outcome.rc})"
    return f"step {spec.name} ended with rc {outcome.rc}"
