"""Why a build waits, a worker is not started, used or stopped, and what would have to change."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from hostler_hub.errors import InvalidRequest
from hostler_hub.lifecycle import Gate, Instance, Mode, OperatorLease, Policy, State, Timer, Worker
from hostler_hub.scheduling.matching import Reason, Roster
from hostler_hub.scheduling.planner import Budget, Waiting
from hostler_hub.scheduling.reasons import Reasons, remedy, why_not_now
from hostler_hub.specs.build import BuildSpec, Requirements
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.workers.registry import Entry, Registry

NOW = 1_000_000.0
PERSON = OperatorLease("P1", "ann", NOW, NOW + 60, 300)
FULL = Budget(0, "max_instances", "group g: 2 of at most 2 instances")


@dataclass
class Groups:
    """What the groups allow: one budget for all, and one reason to keep what is idle."""

    budget: Budget = field(default_factory=Budget)
    kept: tuple[str, str, str | None] | None = None

    def budget_of(self, _entry: Entry, _now: float) -> Budget:
        return self.budget

    def why_kept(self, _entry: Entry, _now: float) -> tuple[str, str, str | None] | None:
        return self.kept


def latent(name: str = "w", **rest: Any) -> Worker:
    return replace(Worker(name, Policy()), **rest)


def up(name: str = "w", **rest: Any) -> Worker:
    instance = Instance("I", 1, {})
    made = latent(name, state=State.SUBSTANTIATED, epoch=1, instance=instance, connection="c")
    return replace(made, **rest)


def permanent(**rest: Any) -> Worker:
    return latent(policy=Policy(permanent=True), **rest)


STARTING = up(state=State.SUBSTANTIATING, connection=None)
STOPPING = up(state=State.INSUBSTANTIATING)
PAUSED = latent(mode=Mode.PAUSED, mode_reason="patching")
QUARANTINED = latent(quarantine_until=NOW + 9, quarantine_reason="504")
REMOVED = latent(removing=True)
DETACHED = up(connection=None)
ASKING = up(gate=Gate.ASKING)
BUSY = up(leases=("L0",))
WORN = up(retiring="it was defined anew")
TAINTED = up(tainted=True, leases=("L0",))


def entry(life: Worker) -> Entry:
    definition = WorkerDefinition.model_validate({"name": life.name, "driver": "fake"})
    return Entry(definition, life, revision=1)


def reasons(*lives: Worker, groups: Groups | None = None) -> Reasons:
    registry = Registry()
    for life in lives:
        registry.add(entry(life))
    return Reasons(registry, Roster(registry), groups or Groups())


def build(number: int = 0, *, not_before: float = 0, **requires: Any) -> Waiting:
    steps = [{"name": "s", "command": ["true"]}]
    spec = BuildSpec.model_validate({"requires": requires, "steps": steps})
    return Waiting(f"B{number}", spec, 1, 0, not_before)


# --- one worker for one build --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("life", "text", "then"),
    [
        (REMOVED, "it is being removed", "define it again when it is gone"),
        (PAUSED, "it is paused: patching", "resume it (mode active)"),
        (QUARANTINED, "it is quarantined: 504", "mend what failed and resume it"),
        (up(person=PERSON), "ann waits to lease it", "wait until the lease ends"),
        (permanent(), "it is latent", "start its agent"),
        (STOPPING, "it is insubstantiating", "nothing: a new instance is started when"),
        (TAINTED, "a slot did not come back clean", "nothing: a new instance is started when"),
        (ASKING, "its machine is being compared", "wait a minute: its agent is being asked"),
        (BUSY, "all 1 of its slots are leased", "wait for a slot, or define more workers"),
        (WORN, "its instance is to be replaced", "wait for a slot, or define more workers"),
        (DETACHED, "its agent is not attached", "wait until its agent is attached"),
        (
            replace(STARTING, instance=Instance("I", 1)),
            "it is substantiating: its provider has not confirmed the start yet",
            "wait until its agent is attached",
        ),
        (
            replace(STARTING, instance=Instance("I", 1, {"version": 1})),
            "it is substantiating: its instance is there, and its agent is not attached yet",
            "wait until its agent is attached",
        ),
        (
            replace(STOPPING, destroy_attempts=3, last_error="ec2: not visible yet"),
            "it is insubstantiating: it is not proven gone after 3 tries: ec2: not visible yet",
            "nothing: a new instance is started when",
        ),
        (STARTING, "it is substantiating", "wait until its agent is attached"),
        (latent(), "it is latent", "nothing: it is started as soon as its turn comes"),
        (up(), "it is free; the build is next", "nothing"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_why_not_now_and_what_would_change_it(life: Worker, text: str, then: str) -> None:
    why = why_not_now(life)
    assert why.text.startswith(text)
    assert why.remedy.startswith(then)


@pytest.mark.parametrize(
    "rule", ["max_instances", "max_starting", "max_starts_per_minute", "breaker"]
)
def test_a_latent_worker_is_not_started_for_its_group(rule: str) -> None:
    why = why_not_now(latent(), Budget(0, rule, "group g: enough"))
    assert why.text == "it is not started: group g: enough"
    assert why.remedy
    assert why_not_now(latent(), Budget(1, rule, "")).text == "it is latent"


def test_a_paused_worker_is_remedied_before_its_group_is() -> None:
    assert why_not_now(PAUSED, FULL) == Reason("it is paused: patching", remedy(PAUSED))


# --- builds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("life", "rule"),
    [
        (REMOVED, "removed"),
        (PAUSED, "mode_paused"),
        (latent(mode=Mode.STOPPED, removing=False), "mode_stopped"),
        (QUARANTINED, "quarantined"),
        (up(person=PERSON), "leased_by_person"),
        (permanent(), "not_attached"),
        (latent(), "free"),
        (STARTING, "starting"),
        (STOPPING, "stopping"),
        (DETACHED, "detached"),
        (ASKING, "being_compared"),
        (up(), "free"),
        (BUSY, "busy"),
        (WORN, "worn_out"),
        (TAINTED, "worn_out"),
    ],
)
def test_the_rule_that_skips_a_build(life: Worker, rule: str) -> None:
    skip = reasons(life).skip_of(build(), NOW)
    assert (skip.rule, skip.text) == (rule, f"1 workers fit: 1 {rule}")
    assert skip.numbers == {"fitting": 1, rule: 1}


def test_a_build_is_skipped_by_the_group_s_limit() -> None:
    assert reasons(latent(), groups=Groups(FULL)).skip_of(build(), NOW).rule == "max_instances"


def test_of_several_rules_the_one_counts_that_is_nearest_to_letting_it_through() -> None:
    lives = [replace(life, name=f"w{n}") for n, life in enumerate((PAUSED, PAUSED, BUSY, STOPPING))]
    skip = reasons(*lives).skip_of(build(), NOW)
    assert skip.rule == "busy"
    assert skip.text.startswith("4 workers fit: 2 mode_paused, ")


def test_a_build_that_fits_no_worker_or_waits_for_its_retry_is_skipped_for_that() -> None:
    why = reasons(up())
    assert why.skip_of(build(labels=["gpu"]), NOW).rule == "no_worker_fits"
    retried = why.skip_of(build(not_before=NOW + 30), NOW)
    assert (retried.rule, retried.numbers) == (
        "retry_backoff",
        {"attempts": 1, "until": NOW + 30},
    )
    assert why.skip_of(build(not_before=NOW), NOW).rule == "free"


def test_a_build_s_reasons_are_counted_the_commonest_first() -> None:
    lives = [replace(life, name=f"w{n}") for n, life in enumerate((BUSY, PAUSED, PAUSED))]
    why = reasons(*lives).of_build(build(), NOW)
    assert why.text == (
        "2 of 3 workers: it is paused: patching; 1 of 3 workers: all 1 of its slots are leased"
    )
    assert why.workers["w0"] == [why_not_now(BUSY)]


def test_what_a_worker_lacks_is_said_before_what_it_is_doing() -> None:
    why = reasons(BUSY).of_build(build(labels=["gpu"], driver="ec2"), NOW)
    assert [each.text for each in why.workers["w"]] == [
        "its driver is fake, not ec2",
        "it has no label gpu",
    ]
    assert why.text == "1 of 1 workers: its driver is fake, not ec2"


def test_a_build_that_is_to_be_retried_waits_for_that_and_one_without_workers_for_one() -> None:
    waiting = build(not_before=NOW + 30.4)
    assert (
        reasons(up()).of_build(waiting, NOW).text == "it is retried in 30 s after losing its worker"
    )
    assert reasons().of_build(build(), NOW).text == "no worker is defined"


@pytest.mark.parametrize(("workers", "explained"), [(0, 20), (1, 20), (2000, 10), (30_000, 1)])
def test_V15_a_list_explains_as_many_builds_as_it_has_time_for(
    workers: int, explained: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = reasons()
    monkeypatch.setattr(Registry, "__len__", lambda _: workers)
    assert len(why.in_words([build(n) for n in range(50)], NOW)) == explained


# --- builds that nothing could ever run ----------------------------------------------------------


def requires(**asked: Any) -> Requirements:
    return Requirements.model_validate(asked)


def test_what_could_run_one_day_is_not_refused() -> None:
    reasons(PAUSED).refuse_hopeless(requires(driver="fake"))


def test_what_no_worker_could_ever_run_is_refused_with_what_the_nearest_lacks() -> None:
    why = reasons(replace(up(), name="w1"), replace(up(), name="w2"))
    with pytest.raises(InvalidRequest) as refused:
        why.refuse_hopeless(requires(worker="w2", labels=["gpu"]))
    assert str(refused.value) == (
        "none of the 2 defined workers has what the build requires; "
        "closest: w2: it has no label gpu"
    )
    assert refused.value.pointer == "/requires"


def test_without_any_worker_that_is_said() -> None:
    with pytest.raises(InvalidRequest, match="no worker is defined yet"):
        reasons().refuse_hopeless(requires())


# --- a worker ------------------------------------------------------------------------------------

IDLE = up(timers={Timer.IDLE: NOW + 90})


@pytest.mark.parametrize(
    ("life", "groups", "not_started", "not_used", "not_stopped"),
    [
        (latent(), Groups(), "no queued build needs it", "it is latent", None),
        (latent(), Groups(FULL), FULL.why, "it is latent", None),
        (PAUSED, Groups(FULL), "it is paused: patching", "it is paused: patching", None),
        (STARTING, Groups(), None, "it is substantiating", "it is starting"),
        (IDLE, Groups(), None, "no queued build fits it", "it is idle, and stops in 90 s unless"),
        (
            IDLE,
            Groups(kept=("min_idle", "group g keeps 2 idle", "g")),
            None,
            "no queued build fits it",
            "group g keeps 2 idle",
        ),
        (up(), Groups(), None, "no queued build fits it", "build_wait_timeout keeps it until"),
        (BUSY, Groups(), None, None, "it runs 1 build"),
        (up(leases=("L0", "L1")), Groups(), None, None, "it runs 2 builds"),
        (up(person=PERSON), Groups(), None, "ann waits to lease it", "ann has it or waits for it"),
        (DETACHED, Groups(), None, "its agent is not attached", "its agent is lost, and waited"),
        (
            up(policy=Policy(permanent=True)),
            Groups(),
            None,
            "no queued build fits it",
            "its owner starts and stops it",
        ),
        (STOPPING, Groups(), "its last instance is still", "it is insubstantiating", None),
    ],
    ids=[
        "latent",
        "latent in a full group",
        "paused",
        "starting",
        "idle",
        "kept idle",
        "kept until the hub stops",
        "one build",
        "two builds",
        "a person waits",
        "detached",
        "permanent",
        "stopping",
    ],
)
def test_why_a_worker_is_not_started_used_or_stopped(
    life: Worker,
    groups: Groups,
    not_started: str | None,
    not_used: str | None,
    not_stopped: str | None,
) -> None:
    said = reasons(groups=groups).of_worker(entry(life), NOW).model_dump()
    wanted = {"not_started": not_started, "not_used": not_used, "not_stopped": not_stopped}
    assert {key: text and text[: len(wanted[key] or "")] for key, text in said.items()} == wanted


def test_an_idle_countdown_that_is_over_is_not_below_zero() -> None:
    late = entry(up(timers={Timer.IDLE: NOW - 5}))
    assert "stops in 0 s" in str(reasons().of_worker(late, NOW).not_stopped)
