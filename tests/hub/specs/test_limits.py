"""What may be asked of a worker's kernel, and whose word counts."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hostler_hub.specs import step
from hostler_hub.specs.build import BuildSpec
from hostler_hub.specs.step import Limits, effective


def build(**step: Any) -> dict[str, Any]:
    return {"steps": [{"name": "s", "command": ["true"], **step}]}


@pytest.mark.parametrize(
    "asked",
    [
        {"memory_mb": step.MEMORY_MB, "processes": 1, "cpu_percent": 1},
        {"memory_mb": step.MOST_MEMORY_MB, "processes": 1_000_000, "cpu_percent": 100},
        {},
    ],
)
def test_what_may_be_asked_is_read_back_as_it_was(asked: dict[str, int]) -> None:
    made = BuildSpec.model_validate({**build(limits=asked, batch_files=True), "limits": asked})
    stored = made.model_dump(mode="json")
    assert BuildSpec.model_validate(stored) == made
    assert stored["steps"][0]["limits"] == {**dict.fromkeys(Limits.model_fields), **asked}


@pytest.mark.parametrize(
    "asked",
    [
        {"memory_mb": step.MEMORY_MB - 1},
        {"memory_mb": step.MOST_MEMORY_MB + 1},
        {"memory_mb": 256.0},
        {"memory_mb": "256"},
        {"processes": 0},
        {"processes": True},
        {"processes": 1_000_001},
        {"cpu_percent": 0},
        {"cpu_percent": 101},
        {"cpu_percent": 12.5},
        {"memory": 256},
        256,
    ],
)
def test_one_past_each_limit_is_refused(asked: Any) -> None:
    for spec in (build(limits=asked), {**build(), "limits": asked}):
        with pytest.raises(ValidationError, match="limits"):
            BuildSpec.model_validate(spec)


@pytest.mark.parametrize("option", [{"limits": {"processes": 1}}, {"batch_files": True}])
def test_only_commands_take_them(option: dict[str, Any]) -> None:
    step = {"name": "s", "mkdir": ["a"], **option}
    with pytest.raises(ValidationError, match="is for steps with a command"):
        BuildSpec.model_validate({"steps": [step]})
    made = BuildSpec.model_validate({"steps": [{"name": "s", "mkdir": ["a"]}]})
    assert option.keys().isdisjoint(made.model_dump()["steps"][0])


@pytest.mark.parametrize(
    ("build", "step", "expected"),
    [
        (None, None, None),
        (Limits(), Limits(), None),
        (Limits(memory_mb=64), None, Limits(memory_mb=64)),
        (None, Limits(processes=2), Limits(processes=2)),
        (
            Limits(memory_mb=64, cpu_percent=50),
            Limits(memory_mb=128, processes=2),
            Limits(memory_mb=128, processes=2, cpu_percent=50),
        ),
    ],
)
def test_a_steps_own_limits_win_one_by_one(
    build: Limits | None, step: Limits | None, expected: Limits | None
) -> None:
    assert effective(build, step) == expected


def test_the_names_of_those_that_are_set() -> None:
    assert Limits(memory_mb=64, cpu_percent=50).words == "memory_mb, cpu_percent"
