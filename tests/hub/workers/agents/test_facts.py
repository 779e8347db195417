"""What becomes of what a worker says about its machine."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_agent.wire.errors import ProtocolError
from hostler_agent.wire.extension import AgentReport
from hostler_hub.lifecycle import Policy, Worker
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.workers.agents import facts
from hostler_hub.workers.agents.facts import facts_of, info_within_limits, report_within_limits
from hostler_hub.workers.registry import Entry


def test_X06_os_release_keys_are_always_there_and_null_where_nothing_is_said() -> None:
    assert facts_of({}, None) == {**dict.fromkeys(facts.OS_KEYS), "isolation": "none"}
    report = AgentReport("boot", "process", facts={"os_id": "debian", "os_name": "Debian"})
    told = facts_of({"os_id": "liar"}, report)
    assert told["os_id"] == "debian"
    assert told["os_name"] == "Debian"
    assert told["os_version_codename"] is None


def test_a_stock_worker_s_cpus_have_the_name_that_builds_ask_for() -> None:
    assert facts_of({"numcpus": 8}, None)["cpu_count"] == 8
    assert facts_of({"numcpus": "many"}, None).get("cpu_count") is None


def test_V14_the_environment_is_no_fact() -> None:
    told = facts_of({"environ": {"TOKEN": "x"}, "worker_commands": {}, "basedir": "/w"}, None)
    assert told == {**dict.fromkeys(facts.OS_KEYS), "basedir": "/w", "isolation": "none"}


def test_V15_facts_are_bounded_whatever_the_worker_says() -> None:
    flood = {f"fact{number}": "x" * 10_000 for number in range(1000)}
    told = facts_of({**flood, "nested": {"a": 1}, "k" * 1000: 1}, None)
    assert len(told) <= facts.FACTS + len(facts.OS_KEYS) + 1
    assert max(len(str(value)) for value in told.values()) == facts.TEXT_SIZE
    assert max(map(len, told)) <= facts.KEY_SIZE
    assert "nested" not in told


def test_defaults_lose_against_facts_and_properties_win_over_them() -> None:
    definition = WorkerDefinition.model_validate(
        {
            "name": "w",
            "driver": "local",
            "default_properties": {"a": "default", "b": "default", "c": "default"},
            "properties": {"c": "insisted"},
        }
    )
    life = Worker("w", Policy())
    entry = Entry(definition, life, revision=1, facts={"b": "fact", "c": "fact"})
    assert entry.properties == {"a": "default", "b": "fact", "c": "insisted"}


@pytest.mark.parametrize(
    ("told", "isolation"),
    [("user", "user"), ("container", "container"), ("perfect", "none"), (["user"], "none")],
)
def test_V20_an_isolation_that_the_hub_does_not_know_is_none(told: object, isolation: str) -> None:
    report = AgentReport("boot", "process", facts={"isolation": told})
    assert facts_of({"isolation": "user"}, report)["isolation"] == isolation


def test_V20_a_stock_worker_gives_no_isolation_whatever_its_info_files_say() -> None:
    assert facts_of({"isolation": "user"}, None)["isolation"] == "none"


def test_V20_no_definition_outdoes_the_isolation_that_the_agent_reports() -> None:
    definition = WorkerDefinition.model_validate(
        {"name": "w", "driver": "local", "properties": {"isolation": "user"}}
    )
    entry = Entry(definition, Worker("w", Policy()), revision=1, facts={"isolation": "none"})
    assert entry.properties == {"isolation": "none"}


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.binary(max_size=10)
    | st.text(max_size=10)
    | st.just("x" * 10_000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
REPORTS = st.fixed_dictionaries(
    {
        "version": st.just(1) | VALUES,
        "boot_id": st.text() | VALUES,
        "process": st.just("p" * 1000) | VALUES,
        "commands": st.just([]) | VALUES,
        "facts": st.dictionaries(st.text(max_size=5), VALUES) | VALUES,
    }
)


@given(
    st.dictionaries(st.text(max_size=5), VALUES)
    | st.fixed_dictionaries({"basedir": VALUES, "worker_commands": VALUES}),
    st.none() | REPORTS,
)
def test_U4_V15_any_worker_info_is_bounded_or_refused(
    info: dict[str, Any], hostler: dict[str, Any] | None
) -> None:
    told = info if hostler is None else {**info, "hostler": hostler}
    with contextlib.suppress(ProtocolError):
        report = report_within_limits(AgentReport.parse(told))
        kept = info_within_limits(told)
        assert isinstance(kept["basedir"], str)
        found = facts_of(kept, report)
        assert len(json.dumps([kept, found], allow_nan=False)) < 10 * facts.FACTS_SIZE
        assert report is None or len(report.process) <= facts.KEY_SIZE
