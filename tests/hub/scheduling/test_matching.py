"""Which workers fit a build, what is said of those that do not, and what is remembered of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hostler_hub.lifecycle import Policy, Worker
from hostler_hub.scheduling import matching
from hostler_hub.scheduling.matching import Matcher, Reason, Roster, Traits, fits, mismatches
from hostler_hub.specs.build import Requirements
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.workers.registry import Entry, Registry


def traits(**over: Any) -> Traits:
    known: dict[str, Any] = {"driver": "fake", "labels": frozenset({"linux"}), "properties": {}}
    return Traits("w1", **{**known, **over})


def requires(**asked: Any) -> Requirements:
    return Requirements.model_validate(asked)


def texts(asked: Requirements, has: Traits) -> list[str]:
    return [each.text for each in mismatches(asked, has)]


def test_requirements_and_what_is_said_of_them() -> None:
    worker = traits(properties={"os_id": "debian", "cores": 8})
    assert texts(requires(labels=["linux"], properties={"cores": 8}), worker) == []
    asked = requires(
        worker="w2",
        driver="ec2",
        labels=["gpu"],
        properties={"os_id": "alpine", "x": 1},
        facts=["cores >= 16", "memory_mb > 1"],
    )
    assert texts(asked, worker) == [
        "the build asks for worker w2",
        "its driver is fake, not ec2",
        "it has no label gpu",
        "its property os_id is 'debian', not 'alpine'",
        "its property x is not set, not 1",
        "its fact cores is 8, not >= 16",
        "it has no fact memory_mb",
    ]
    assert all(each.remedy for each in mismatches(asked, worker))
    assert Reason("it has no label gpu", "give it the label gpu") in mismatches(asked, worker)


def test_V20_a_build_gets_the_isolation_that_it_requires() -> None:
    asked = requires(isolation=["user", "container"])
    assert texts(asked, traits(properties={"isolation": "container"})) == []
    assert mismatches(asked, traits(properties={"isolation": "none"})) == [
        Reason(
            "its isolation is none, not user or container",
            "run its agent as root with run_as: build_user, or submit the build with "
            "requires.isolation none",
        )
    ]
    assert texts(requires(isolation="user"), traits()) == [
        "its isolation is not known, and the build requires user"
    ]


REQUIREMENTS = st.builds(
    requires,
    worker=st.sampled_from([None, "w1", "w2"]),
    driver=st.sampled_from([None, "fake", "ec2"]),
    labels=st.lists(st.sampled_from(["linux", "gpu"]), max_size=2),
    isolation=st.lists(st.sampled_from(["user", "container", "none"]), max_size=2),
    properties=st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from([1, None]), max_size=2),
    facts=st.lists(st.sampled_from(["a == 1", "b != 1", "c < 9"]), max_size=2),
)
TRAITS = st.builds(
    traits,
    driver=st.sampled_from(["fake", "ec2"]),
    labels=st.frozensets(st.sampled_from(["linux", "gpu"])),
    properties=st.dictionaries(
        st.sampled_from(["a", "b", "c", "isolation"]),
        st.sampled_from([1, None, 12, "user", "none"]),
    ),
)


@given(asked=REQUIREMENTS, has=TRAITS)
def test_what_fits_lacks_nothing_and_the_other_way_round(asked: Requirements, has: Traits) -> None:
    assert fits(asked, has) == (not mismatches(asked, has))
    assert Matcher([has]).fitting("k", asked) == ({"w1"} if fits(asked, has) else frozenset())


@given(asked=st.lists(REQUIREMENTS, max_size=4), fleet=st.lists(TRAITS, max_size=6))
def test_a_fleet_is_asked_as_each_of_its_workers(
    asked: list[Requirements], fleet: list[Traits]
) -> None:
    named = [replace(each, name=f"w{number}") for number, each in enumerate(fleet)]
    matcher = Matcher(named)
    for number, each in enumerate(asked):
        fitting = {worker.name for worker in named if fits(each, worker)}
        assert matcher.fitting(f"k{number}", each) == fitting


def test_V15_what_is_remembered_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(matching, "REMEMBERED", 10)
    matcher = Matcher([traits()])
    for number in range(1000):
        assert matcher.fitting(f"k{number}", requires()) == {"w1"}
    assert len(matcher._answers) <= 5


def test_a_changed_definition_or_fact_is_seen_and_nothing_else_asks_again() -> None:
    definition = WorkerDefinition.model_validate({"name": "w1", "driver": "fake"})
    entry = Entry(definition, Worker("w1", Policy()), revision=1)
    registry = Registry()
    registry.add(entry)
    roster = Roster(registry)
    first = roster.matcher()
    assert roster.matcher() is first
    entry.facts = {"memory_mb": 9000}
    asked = requires(facts=["memory_mb > 8000"])
    assert roster.matcher().fitting("k", asked) == {"w1"}
    entry.definition = definition.model_copy(update={"properties": {"memory_mb": 1}})
    assert roster.matcher().fitting("k", asked) == frozenset()
    registry.discard("w1")
    assert roster.matcher().fitting("k", requires()) == frozenset()
