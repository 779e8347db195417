"""Whom an order by selection reaches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from hostler_hub.lifecycle import Mode, Policy, State, Worker
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.workers.registry import Entry
from hostler_hub.workers.selection import Select

DEFINITION = {
    "name": "w",
    "driver": "docker",
    "group": "nightly",
    "labels": ["linux", "big"],
    "properties": {"zone": "a"},
}


def entry(**life: Any) -> Entry:
    definition = WorkerDefinition.model_validate(DEFINITION)
    worker = replace(Worker("w", Policy()), **life)
    return Entry(definition, worker, revision=1, facts={"os_id": "debian", "cpu_count": 4})


@pytest.mark.parametrize(
    ("select", "life", "fits"),
    [
        ({"all": True}, {}, True),
        ({"driver": "docker"}, {}, True),
        ({"driver": ["local", "docker"]}, {}, True),
        ({"driver": "local"}, {}, False),
        ({"group": ["nightly", "other"]}, {}, True),
        ({"group": "other"}, {}, False),
        ({"labels": ["linux"]}, {}, True),
        ({"labels": ["linux", "big"]}, {}, True),
        ({"labels": ["linux", "small"]}, {}, False),
        ({"state": ["latent", "substantiating"]}, {}, True),
        ({"state": "substantiated"}, {}, False),
        ({"state": "substantiated"}, {"state": State.SUBSTANTIATED}, True),
        ({"mode": "paused"}, {"mode": Mode.PAUSED}, True),
        ({"mode": "paused"}, {}, False),
        ({"missing": True}, {"missing_since": 1.0}, True),
        ({"missing": True}, {}, False),
        ({"missing": False}, {}, True),
        ({"quarantined": True}, {"quarantine_until": 1.0}, True),
        ({"quarantined": False}, {"quarantine_until": 1.0}, False),
        ({"properties": {"zone": "a", "os_id": "debian"}}, {}, True),
        ({"properties": {"zone": "b"}}, {}, False),
        ({"properties": {"absent": None}}, {}, False),
        ({"driver": "docker", "mode": "paused"}, {}, False),
    ],
)
def test_every_condition_must_hold(
    select: dict[str, Any], life: dict[str, Any], fits: bool
) -> None:
    assert Select.model_validate(select).fits(entry(**life)) is fits


@pytest.mark.parametrize(
    "select",
    [
        {},
        {"all": False},
        {"driver": []},
        {"driver": None},
        {"labels": []},
        {"properties": {}},
        {"state": "asleep"},
        {"mode": ["active", "x"]},
        {"missing": "yes"},
        {"colour": "red"},
    ],
)
def test_what_says_nothing_or_nonsense_reaches_nobody(select: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Select.model_validate(select)
