"""The states of builds and steps: each with its sentence, and terminal or not."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from hostler_hub.specs.states import (
    TERMINAL_BUILD_STATES,
    TERMINAL_STEP_STATES,
    BuildState,
    StepState,
)


class Shown(BaseModel):
    build: BuildState
    step: StepState


def test_what_is_terminal() -> None:
    assert {"success", "failure", "exception", "cancelled"} == TERMINAL_BUILD_STATES
    assert TERMINAL_BUILD_STATES | {"skipped"} == TERMINAL_STEP_STATES
    assert [state for state in BuildState if not state.is_terminal] == ["queued", "running"]
    assert [state for state in StepState if not state.is_terminal] == ["pending", "running"]


@pytest.mark.parametrize("kind", [BuildState, StepState])
def test_openapi_has_the_sentence_of_every_state(kind: type[BuildState | StepState]) -> None:
    schema = Shown.model_json_schema()["$defs"][kind.__name__]
    assert schema["enum"] == [state.value for state in kind]
    for state in kind:
        assert state.sentence.endswith(".")
        assert f"- `{state.value}`: {state.sentence}" in schema["description"]


def test_a_state_is_read_from_its_word_and_goes_out_as_it() -> None:
    shown = Shown.model_validate({"build": "queued", "step": "skipped"})
    assert shown.build is BuildState.QUEUED
    assert shown.model_dump_json() == '{"build":"queued","step":"skipped"}'
    with pytest.raises(ValidationError, match="'queued', 'running', 'success'"):
        Shown.model_validate({"build": "done", "step": "skipped"})
