"""Every field of a life is kept in a column, or named as one that is not; and comes back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from hostler_hub.drivers.contract import Capabilities
from hostler_hub.lifecycle.model import Instance, Mode, OperatorLease, Policy, State, Worker
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.store.tables import workers
from hostler_hub.workers.rows import DERIVED, TRANSIENT, columns_of, life_of, policy_of

FIELDS = {each.name for each in dataclasses.fields(Worker)}
# Columns of the table that are not of the life: see `definitions` and `transition`.
OF_THE_ENTRY = {"name", "definition", "password_hash", "facts", "revision"}
DEFINITION = {"name": "w", "driver": "fake"}

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
seconds = st.floats(0, 1e11)
counts = st.integers(0, 2**31 - 1)
documents = st.dictionaries(words, st.none() | st.booleans() | counts | words, max_size=3)
operator_leases = st.builds(
    OperatorLease,
    id=words,
    holder=words,
    asked_at=seconds,
    until=seconds,
    ttl_s=seconds,
    reason=st.none() | words,
    keep=st.booleans(),
    granted_at=st.none() | seconds,
)
VALUES = {
    "mode": st.sampled_from(Mode),
    "mode_reason": st.none() | words,
    "mode_by": st.none() | words,
    "mode_at": st.none() | seconds,
    "mode_until": st.none() | seconds,
    "state": st.sampled_from(State),
    "state_since": seconds,
    "epoch": counts,
    "up_since": st.none() | seconds,
    "uses": counts,
    "retiring": st.none() | words,
    "person": st.none() | operator_leases,
    "tainted": st.booleans(),
    "quarantine_until": st.none() | seconds,
    "quarantine_reason": st.none() | words,
    "backoff_s": seconds,
    "missing_since": st.none() | seconds,
    "missing_reason": st.none() | words,
    "failed_starts": counts,
    "last_error": st.none() | words,
    "removing": st.booleans(),
    "destroy_attempts": counts,
}


@st.composite
def lives(draw: st.DrawFn) -> Worker:
    values = {name: draw(strategy) for name, strategy in VALUES.items()}
    instance = None
    if draw(st.booleans()):
        instance = Instance(draw(words), values["epoch"], draw(st.none() | documents))
    return Worker("w", Policy(), instance=instance, **values)


@pytest.fixture(scope="module")
def engine() -> Iterator[sa.Engine]:
    made = sa.create_engine("sqlite://")
    workers.create(made)
    yield made
    made.dispose()


def test_every_field_is_tried_or_named_as_one_that_no_column_keeps() -> None:
    assert VALUES.keys() | {"instance"} | TRANSIENT | DERIVED == FIELDS


def test_every_column_of_the_table_is_a_field_s_or_the_entry_s() -> None:
    columns = set(workers.columns.keys())
    assert columns_of(Worker("w", Policy())).keys() == columns - OF_THE_ENTRY


@given(life=lives(), leases=st.lists(words, max_size=2).map(tuple))
def test_a_life_survives_its_row(engine: sa.Engine, life: Worker, leases: tuple[str, ...]) -> None:
    """The store may hold it, and all that is lost is what ends with the hub's process."""
    row = {"name": "w", "definition": {}, "facts": {}, "revision": 1, **columns_of(life)}
    with engine.connect() as c:
        c.execute(sa.insert(workers), row)
        stored = c.execute(sa.select(workers)).mappings().one()
        c.rollback()
    policy = Policy(max_builds=3)
    assert life_of(stored, policy, leases, "nonce") == dataclasses.replace(
        life, policy=policy, leases=leases, process="nonce"
    )


def test_every_field_of_a_policy_comes_from_the_definition_or_the_driver() -> None:
    definition = WorkerDefinition.model_validate(
        {
            **DEFINITION,
            "build_wait_timeout": 1,
            "missing_timeout": 2,
            "check_instance_interval": 3,
            "max_builds": 4,
            "max_uses": 5,
            "max_uptime": 6,
            "expects": {"disk_free_mb": 7},
        }
    )
    policy = policy_of(definition, Capabilities(permanent=True), lease_ttl_s=8.0)
    default = Policy()
    same = [
        each.name
        for each in dataclasses.fields(Policy)
        if getattr(policy, each.name) == getattr(default, each.name)
    ]
    assert same == []
    driver = Capabilities(missing_timeout_s=9.0)
    given_none = policy_of(
        WorkerDefinition.model_validate(DEFINITION), driver, lease_ttl_s=default.lease_ttl_s
    )
    assert given_none == dataclasses.replace(default, missing_timeout_s=9.0)
