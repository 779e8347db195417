"""Which step is next, and what a build's result is."""

from __future__ import annotations

import pytest

from hostler_hub.builds.states import StepOutcome, next_step, result_of
from hostler_hub.specs.build import StepSpec
from hostler_hub.specs.states import StepState


def steps(*flags: str) -> list[StepSpec]:
    """Steps named 0, 1, ...; ``go`` does not halt on failure, ``always`` runs in any case."""
    return [
        StepSpec(
            name=str(index),
            command=("true",),
            halt_on_failure=flag != "go",
            always_run=flag == "always",
        )
        for index, flag in enumerate(flags)
    ]


@pytest.mark.parametrize(
    ("flags", "states", "index"),
    [
        (["", ""], ["pending", "pending"], 0),
        (["", ""], ["success", "pending"], 1),
        (["", ""], ["success", "success"], None),
        (["", ""], ["failure", "pending"], None),
        (["go", ""], ["failure", "pending"], 1),
        (["", "", "always"], ["failure", "pending", "pending"], 2),
        (["", "always", ""], ["exception", "success", "pending"], None),
        (["", ""], ["running", "pending"], 0),
        (["", "always"], ["cancelled", "pending"], 1),
    ],
)
def test_next_step(flags: list[str], states: list[str], index: int | None) -> None:
    assert next_step(steps(*flags), [StepState(each) for each in states]) == index


def test_the_worst_step_is_the_result_and_says_which_it_was() -> None:
    specs = steps("go", "go", "go")
    good, bad = StepOutcome(StepState.SUCCESS, 0), StepOutcome(StepState.FAILURE, 2)
    broken = StepOutcome(StepState.EXCEPTION, None, None, "the agent refused: no")
    assert result_of(specs, [good, good, good]) == ("success", None)
    assert result_of(specs, [good, bad, good]) == ("failure", "step 1 ended with rc 2")
    assert result_of(specs, [bad, good, broken])[0] == "exception"
    assert "agent refused" in str(result_of(specs, [bad, good, broken])[1])


def test_a_timeout_is_named() -> None:
    late = StepOutcome(StepState.FAILURE, -1, "timeout_without_output")
    assert result_of(steps(""), [late])[1] == "step 0: timeout_without_output (rc -1)"
