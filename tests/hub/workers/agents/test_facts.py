"""What becomes of what a worker says about its machine."""

from __future__ import annotations

import pytest

from hostler_agent.wire.extension import AgentReport
from hostler_hub.lifecycle import Policy, Worker
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.workers.agents import facts
from hostler_hub.workers.agents.facts import facts_of
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
