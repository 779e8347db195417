"""The states of builds and of steps, each with a sentence, and which of them are terminal."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Self

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema


class _DescribedState(StrEnum):
    """A state and the sentence that says what it means."""

    sentence: str

    def __new__(cls, value: str, sentence: str = "") -> Self:
        state = str.__new__(cls, value)
        state._value_ = value
        state.sentence = sentence
        return state

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """OpenAPI's description of the type: its own, and one line per state."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        lines = [f"- `{state.value}`: {state.sentence}" for state in cls]
        schema["description"] = "\n".join([cls.__doc__ or "", "", *lines])
        return schema


class BuildState(_DescribedState):
    """How a build is."""

    QUEUED = "queued", "It waits for a worker, also after it lost one."
    RUNNING = "running", "A worker is leased to it, and its steps run."
    SUCCESS = "success", "Every step that ran succeeded."
    FAILURE = "failure", "A step failed: its command ended badly, or took too long."
    EXCEPTION = "exception", "The infrastructure failed it: its worker or the hub, not its command."
    CANCELLED = "cancelled", "Somebody ended it before it had another result."

    @property
    def is_terminal(self) -> bool:
        """Whether the build has its result, which never changes."""
        return self in TERMINAL_BUILD_STATES


class StepState(_DescribedState):
    """How a step of a build's attempt is."""

    PENDING = "pending", "It has not begun."
    RUNNING = "running", "The worker's agent runs it."
    SUCCESS = "success", "It did what it was to do."
    FAILURE = "failure", "Its command ended badly, or took too long."
    EXCEPTION = "exception", "The infrastructure failed it: the worker or the hub."
    CANCELLED = "cancelled", "It was ended because somebody cancelled the build."
    SKIPPED = "skipped", "It never began, because a step before it failed or was cancelled."

    @property
    def is_terminal(self) -> bool:
        """Whether the step has its result: no output follows."""
        return self in TERMINAL_STEP_STATES


TERMINAL_BUILD_STATES = frozenset(BuildState) - {BuildState.QUEUED, BuildState.RUNNING}
TERMINAL_STEP_STATES = frozenset(StepState) - {StepState.PENDING, StepState.RUNNING}
