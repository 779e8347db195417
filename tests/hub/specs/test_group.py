"""What a group's definition may say, and where it is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hostler_hub.specs.group import GroupDefinition

WEEKDAYS = {"cron": "0 8 * * 1-5", "duration_s": 3600, "min_idle": 1}


def group(**rest: Any) -> GroupDefinition:
    return GroupDefinition.model_validate({"name": "g", **rest})


@pytest.mark.parametrize(
    ("fields", "where", "text"),
    [
        ({"min_idle": 3, "max_instances": 2}, (), "min_idle is more than max_instances"),
        ({"min_idle": -1}, ("min_idle",), "greater than or equal to 0"),
        ({"max_instances": 10_001}, ("max_instances",), "less than or equal to 10000"),
        ({"max_starting": 0}, ("max_starting",), "greater than or equal to 1"),
        ({"max_starts_per_minute": 0}, ("max_starts_per_minute",), "or equal to 1"),
        ({"failures_allowed": 0}, ("failures_allowed",), "greater than or equal to 1"),
        ({"min_idle": True}, ("min_idle",), "valid integer"),
        ({"min_idle": 1.5}, ("min_idle",), "valid integer"),
        ({"name": "a b"}, ("name",), ""),
        ({"colour": "red"}, ("colour",), "Extra inputs"),
        ({"schedules": [WEEKDAYS] * 65}, ("schedules",), "at most 64 items"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_what_is_no_group_is_refused_where_it_is_wrong(
    fields: dict[str, Any], where: tuple[str, ...], text: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        group(**fields)
    first = refused.value.errors()[0]
    assert first["loc"] == where
    assert text in first["msg"]


def test_a_group_without_numbers_has_no_limits() -> None:
    free = group()
    assert (free.min_idle, free.max_instances, free.max_starting) == (0, None, None)
    assert (free.max_starts_per_minute, free.failures_allowed) == (None, 5)


def test_as_many_idle_as_there_may_be_is_no_contradiction() -> None:
    assert group(min_idle=2, max_instances=2).min_idle == 2


def test_what_is_public_defines_the_same_group() -> None:
    one = group(min_idle=1, max_instances=4, schedules=[WEEKDAYS], description="nightly builds")
    assert GroupDefinition.model_validate(one.public()) == one
