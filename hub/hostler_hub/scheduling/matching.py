"""Finds the workers that meet a build's requirements, and explains why others do not. Pure.

Whether a worker fits depends only on its definition and on the facts that its agent reports, so the
answer for each kind of build is kept until one of these changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hostler_hub.specs import conditions
from hostler_hub.specs.build import Requirements
from hostler_hub.specs.isolation import Isolation, isolation_of
from hostler_hub.workers.registry import Entry, Registry

# How many worker names the kept answers may hold: a bound on memory, whatever people ask (V15).
REMEMBERED = 1_000_000


@dataclass(frozen=True, slots=True)
class Traits:
    """The attributes of a worker that a build's requirements are compared with."""

    name: str
    driver: str
    labels: frozenset[str]
    properties: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a worker does not run a build, and what would have to change."""

    text: str
    remedy: str


def traits_of(entry: Entry) -> Traits:
    definition = entry.definition
    labels = frozenset(definition.labels)
    return Traits(entry.life.name, definition.driver, labels, entry.properties)


def fits(requires: Requirements, traits: Traits) -> bool:
    """Whether the worker meets all requirements, so that mismatches() would return none. It is
    called very often, hence builds no texts.
    """
    if requires.worker not in {None, traits.name} or requires.driver not in {None, traits.driver}:
        return False
    if not traits.labels.issuperset(requires.labels):
        return False
    has = traits.properties
    if requires.isolation and isolation_of(has) not in requires.isolation:
        return False
    for key, value in requires.properties.items():
        if key not in has or has[key] != value:
            return False
    return all(conditions.parse(text).refusal(has) is None for text in requires.facts)


def mismatches(requires: Requirements, traits: Traits) -> list[Reason]:
    """The requirements of the build that the worker does not meet; empty if it fits."""
    found = []
    if requires.worker not in {None, traits.name}:
        text = f"the build asks for worker {requires.worker}"
        found.append(Reason(text, "submit the build without requires.worker"))
    if requires.driver not in {None, traits.driver}:
        text = f"its driver is {traits.driver}, not {requires.driver}"
        found.append(Reason(text, f"submit the build for driver {traits.driver}"))
    found.extend(
        Reason(f"it has no label {label}", f"give it the label {label}")
        for label in requires.labels
        if label not in traits.labels
    )
    return [
        *found,
        *_wrong_isolation(requires, traits),
        *_wrong_properties(requires, traits),
        *_wrong_facts(requires, traits),
    ]


def _wrong_isolation(requires: Requirements, traits: Traits) -> Iterator[Reason]:
    has = isolation_of(traits.properties)
    if not requires.isolation or has in requires.isolation:
        return
    wanted = " or ".join(requires.isolation)
    if has is None:
        yield Reason(
            f"its isolation is not known, and the build requires {wanted}",
            "start it once: its agent tells it when it attaches; until then its "
            "default_properties may",
        )
        return
    remedy = f"submit the build with requires.isolation {has}"
    if Isolation.USER in requires.isolation:
        remedy = f"run its agent as root with run_as: build_user, or {remedy}"
    yield Reason(f"its isolation is {has}, not {wanted}", remedy)


def _wrong_properties(requires: Requirements, traits: Traits) -> Iterator[Reason]:
    has = traits.properties
    for key, value in requires.properties.items():
        if key not in has or has[key] != value:
            shown = repr(has[key]) if key in has else "not set"
            text = f"its property {key} is {shown}, not {value!r}"
            yield Reason(text, f"set its property {key} to {value!r}")


def _wrong_facts(requires: Requirements, traits: Traits) -> Iterator[Reason]:
    for text in requires.facts:
        condition = conditions.parse(text)
        refusal = condition.refusal(traits.properties)
        if refusal is None:
            continue
        remedy = "submit the build with another condition"
        if condition.fact not in traits.properties:
            remedy = (
                f"set its property {condition.fact}, or start it once: an agent tells its facts "
                "when it attaches"
            )
        yield Reason(refusal, remedy)


class Matcher:
    """Finds the workers that fit in a fleet that does not change; when a worker's traits change, a
    new matcher is made.

    Most builds differ in how they combine requirements, not in the single requirements, and workers
    have few different values of a fact. So each requirement is answered once, and a condition is
    evaluated once for each value of its fact.
    """

    def __init__(self, fleet: Sequence[Traits]) -> None:
        self.fleet = fleet
        self._by_name = {each.name: each for each in fleet}
        self._everyone = frozenset(self._by_name)
        self._answers: dict[str, frozenset[str]] = {}
        self._parts: dict[tuple[str, str], frozenset[str]] = {}
        self._holders: dict[str, list[tuple[Any, frozenset[str]]]] = {}
        self._remembered = 0

    def traits(self, name: str) -> Traits:
        return self._by_name[name]

    def fitting(self, kind: str, requires: Requirements) -> frozenset[str]:
        """The names of the workers that fit builds of this kind."""
        known = self._answers.get(kind)
        if known is None:
            known = self._answers[kind] = self._find(requires)
            self._remember(known)
        return known

    def _find(self, requires: Requirements) -> frozenset[str]:
        """The workers that meet all requirements: the intersection of the answers to each."""
        if requires.worker is not None:
            only = self._by_name.get(requires.worker)
            fit = only is not None and fits(requires, only)
            return frozenset({requires.worker} if fit else ())
        found = self._everyone
        for text in requires.facts:
            found &= self._part(self._meeting, text)
        for label in requires.labels:
            found &= self._part(self._labelled, label)
        if requires.driver is not None or requires.properties or requires.isolation:
            rest = requires.model_copy(update={"facts": (), "labels": ()})
            found &= self._part(self._otherwise, rest.model_dump_json())
        return found

    def _part(self, find: Callable[[str], frozenset[str]], text: str) -> frozenset[str]:
        """The workers that meet one requirement, given as text. ``find`` is called only
        the first time.
        """
        known = self._parts.get((find.__name__, text))
        if known is None:
            known = self._parts[find.__name__, text] = find(text)
            self._remember(known)
        return known

    def _labelled(self, label: str) -> frozenset[str]:
        return frozenset(each.name for each in self.fleet if label in each.labels)

    def _otherwise(self, text: str) -> frozenset[str]:
        requires = Requirements.model_validate_json(text)
        return frozenset(each.name for each in self.fleet if fits(requires, each))

    def _meeting(self, text: str) -> frozenset[str]:
        condition = conditions.parse(text)
        fact = condition.fact
        if fact not in self._holders:
            self._holders[fact] = self._group(fact)
        holders = self._holders[fact]
        met = (names for value, names in holders if condition.refusal({fact: value}) is None)
        return frozenset().union(*met)

    def _group(self, fact: str) -> list[tuple[Any, frozenset[str]]]:
        """The values of ``fact``, each with the names of the workers that have it. Values are told
        apart by repr(), so that 8 and 8.0, equal in Python, stay two.
        """
        values: dict[str, Any] = {}
        names: dict[str, list[str]] = {}
        for each in self.fleet:
            if fact in each.properties:
                value = each.properties[fact]
                values[repr(value)] = value
                names.setdefault(repr(value), []).append(each.name)
        return [(value, frozenset(names[text])) for text, value in values.items()]

    def _remember(self, answer: frozenset[str]) -> None:
        """Count a kept answer; forget all answers when they are larger than ``REMEMBERED``."""
        self._remembered += len(answer) + 1
        if self._remembered > REMEMBERED:
            self._answers.clear()
            self._parts.clear()
            self._remembered = 0


class Roster:
    """Keeps the Matcher of the registry's workers, and replaces it when one of them has changed."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._seen: list[tuple[Any, Any, Any]] = []
        self._matcher = Matcher([])

    def matcher(self) -> Matcher:
        """The matcher of the fleet as it is now; the same object as long as nothing has changed."""
        seen = [(each, each.definition, each.facts) for each in self._registry]
        if not _same(seen, self._seen):
            self._seen = seen
            self._matcher = Matcher([traits_of(each) for each in self._registry])
        return self._matcher


def _same(some: Sequence[tuple[Any, ...]], others: Sequence[tuple[Any, ...]]) -> bool:
    """Whether both hold the identical objects. Identity is enough: definitions and facts are
    replaced, never changed in place.
    """
    return len(some) == len(others) and all(
        all(one is other for one, other in zip(left, right, strict=True))
        for left, right in zip(some, others, strict=True)
    )
