"""Why: of each queued build, for each worker, and what would have to change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hostler_hub.errors import InvalidRequest
from hostler_hub.lifecycle.model import (
    Mode,
    State,
    Worker,
    why_not_leasable,
    why_not_startable,
    why_not_usable,
)
from hostler_hub.matching import Reason, Roster, Traits, fits, mismatches
from hostler_hub.planning import Waiting
from hostler_hub.registry import Registry
from hostler_hub.specs import Requirements

# A sentence names so many of the reasons, the commonest first.
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class BuildReasons:
    """Why a build waits: in a sentence, and by worker."""

    text: str
    workers: Mapping[str, list[Reason]]


class Reasons:
    """Says why, of what is."""

    def __init__(self, registry: Registry, roster: Roster) -> None:
        self._registry = registry
        self._roster = roster

    def refuse_hopeless(self, requires: Requirements) -> None:
        """Raise InvalidRequest, with what is missing, where no defined worker could ever fit."""
        matcher = self._roster.matcher()
        if not matcher.fleet:
            raise InvalidRequest("no worker is defined yet: define one first", pointer="/requires")
        if any(fits(requires, each) for each in matcher.fleet):  # mostly the first one does
            return
        nearest = min(matcher.fleet, key=lambda each: len(mismatches(requires, each)))
        missing = [f"{nearest.name}: {each.text}" for each in mismatches(requires, nearest)]
        raise InvalidRequest(
            f"none of the {len(matcher.fleet)} defined workers has what the build requires; "
            f"closest: {'; '.join(missing[:3])}",
            pointer="/requires",
        )

    def of_build(self, build: Waiting, now: float) -> BuildReasons:
        matcher = self._roster.matcher()
        workers = {
            entry.life.name: self._of_one(build, entry.life, matcher.traits(entry.life.name))
            for entry in self._registry
        }
        return BuildReasons(_summary(build, workers, now), workers)

    def _of_one(self, build: Waiting, life: Worker, traits: Traits) -> list[Reason]:
        missing = mismatches(build.spec.requires, traits)
        return missing or [why_not_now(life)]


def why_not_now(life: Worker) -> Reason:
    """Why a worker that fits does not run the build at this moment."""
    if life.state is State.LATENT and why_not_startable(life) is None:
        return Reason("it is latent", "nothing: it is started as soon as its turn comes")
    refusal = why_not_leasable(life)
    if refusal is None:
        return Reason("it is free; the build is next", "nothing")
    return Reason(refusal, remedy(life))


def remedy(life: Worker) -> str:
    """What would have to change that the worker may be used."""
    if life.removing:
        return "define it again when it is gone"
    if life.mode is not Mode.ACTIVE:
        return "resume it (mode active)"
    if life.quarantine_until is not None:
        return "mend what failed and resume it (mode active), or wait until it is let out"
    if life.policy.permanent and not life.attached:
        return "start its agent"
    if why_not_usable(life) is not None or life.state is State.INSUBSTANTIATING:
        return "nothing: a new instance is started when the old one is proven gone"
    if life.state is State.SUBSTANTIATED and life.attached:
        return "wait for a slot, or define more workers like it"
    return "wait until its agent is attached"


def _summary(build: Waiting, workers: Mapping[str, list[Reason]], now: float) -> str:
    if build.not_before > now:
        return f"it is retried in {build.not_before - now:.0f} s after losing its worker"
    if not workers:
        return "no worker is defined"
    counted: dict[str, int] = {}
    for each in workers.values():
        counted[each[0].text] = counted.get(each[0].text, 0) + 1
    ranked = sorted(counted.items(), key=lambda item: -item[1])
    return "; ".join(
        f"{count} of {len(workers)} workers: {text}" for text, count in ranked[:_SHOWN]
    )
