"""A worker's view: validated when it is made, and said in one place."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hostler_hub.lifecycle.model import Mode, OperatorLease, Policy, State, Worker
from hostler_hub.specs.worker import PublicDefinition, WorkerDefinition
from hostler_hub.workers.registry import Entry
from hostler_hub.workers.views import (
    DefinitionView,
    WorkerReasons,
    WorkerView,
    definition_view,
    worker_view,
)

WHY = WorkerReasons(not_started=None, not_used=None, not_stopped="it runs 1 build")


def entry(**life: object) -> Entry:
    definition = WorkerDefinition.model_validate(
        {"name": "w", "driver": "docker", "labels": ["big"], "password": "correct horse"}
    )
    return Entry(definition, Worker("w", Policy(), **life), 3)  # type: ignore[arg-type]


def test_a_view_is_validated_when_it_is_made() -> None:
    view = worker_view(entry(state=State.SUBSTANTIATED), ["b"], WHY)
    assert (view.mode, view.state, view.builds) == (Mode.ACTIVE, State.SUBSTANTIATED, ["b"])
    with pytest.raises(ValidationError, match="state_since"):
        worker_view(entry(state_since=None), [], WHY)
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        WorkerReasons(not_started=None, not_used=None, not_stopped=None, not_known="x")  # type: ignore[call-arg]


def test_what_is_over_is_null_and_what_holds_has_its_fields() -> None:
    plain = worker_view(entry(), [], WHY).model_dump()
    assert (plain["quarantine"], plain["missing"], plain["lease"]) == (None, None, None)
    lease = OperatorLease("l", "ann", asked_at=1.0, until=9.0, ttl_s=60.0, granted_at=2.0)
    held = entry(person=lease, quarantine_until=5.0, backoff_s=2.5, missing_since=4.0)
    plain = worker_view(held, [], WHY).model_dump()
    assert plain["lease"]["state"] == "held"
    assert plain["lease"]["since"] == "1970-01-01T00:00:02.000Z"
    assert plain["quarantine"] == {
        "until": "1970-01-01T00:00:05.000Z",
        "reason": None,
        "delay_s": 2.5,
    }
    assert plain["missing"] == {"since": "1970-01-01T00:00:04.000Z", "reason": None}


def test_V14_a_definition_s_view_has_every_field_but_the_password() -> None:
    definition = entry().definition
    view = definition_view(definition, has_password=True)
    assert set(DefinitionView.model_fields) == {
        *PublicDefinition.model_fields,
        "password_ref",
        "has_password",
    }
    assert set(WorkerDefinition.model_fields) == {*PublicDefinition.model_fields, "password"}
    assert view.model_dump(mode="json") == {**definition.public(), "has_password": True}
    assert "correct horse" not in view.model_dump_json()


def test_openapi_requires_every_field_of_an_answer() -> None:
    schema = WorkerView.model_json_schema(mode="serialization")
    for each in (schema, schema["$defs"]["DefinitionView"]):
        assert set(each["required"]) == set(each["properties"])
