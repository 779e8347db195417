"""A Hypothesis state machine: any order of events, driver faults included, keeps every invariant.

The shell here is as small as a shell can be: it holds what the core ordered, and the rules decide
when, whether and how each order is answered: late, never, failed, done but reported failed.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hostler_hub.lifecycle import (
    Gate,
    Instance,
    Mode,
    OperatorLease,
    Policy,
    Presence,
    State,
    Timer,
    Worker,
    check,
    check_transition,
    commands,
    events,
    step,
)
from hostler_hub.lifecycle.model import why_not_askable, why_not_leasable

pytestmark = pytest.mark.timeout(60)  # hundreds of examples

POLICIES = st.builds(
    Policy,
    build_wait_timeout_s=st.sampled_from([-1.0, 0.0, 5.0, 600.0]),
    missing_timeout_s=st.just(120.0),
    check_instance_interval_s=st.just(10.0),
    max_builds=st.integers(1, 3),
    max_uses=st.sampled_from([None, 1, 2]),
    max_uptime_s=st.sampled_from([None, 0.5, 3600.0]),
    lease_ttl_s=st.just(300.0),
    permanent=st.just(False),
    expects=st.sampled_from([None, None, "git", "svn"]),
)


class WorkerLife(RuleBasedStateMachine):
    """One worker, its provider, its agents and its builds."""

    @initialize(policy=POLICIES)
    def begin(self, policy: Policy) -> None:
        self.worker = Worker("w", policy)
        self.at = 1000.0
        self.fresh = count(1)
        self.exists: set[str] = set()  # what the provider runs
        self.creating: str | None = None
        self.destroying: str | None = None
        self.agents: dict[str, tuple[str, int]] = {}  # connection: (instance, epoch)
        self.builds: set[str] = set()  # leases given and neither lost nor released
        self.forgotten = False
        self.asked: list[commands.Examine] = []  # looks at a machine that nobody has answered

    # --- the shell ------------------------------------------------------------------------------

    def happen(self, event: events.Event) -> None:
        before = self.worker
        self.worker, ordered = step(before, event)
        check(self.worker)
        check_transition(before, self.worker)
        for command in ordered:
            self.obey(command)

    def obey(self, command: commands.Command) -> None:
        if isinstance(command, commands.Create):
            assert self.creating is None, "P10: two creates at once"
            assert not self.exists, "V4: a second instance while one exists"
            self.creating = command.instance
        elif isinstance(command, commands.Destroy):
            self.destroying = command.instance
        elif isinstance(command, commands.Examine):
            self.asked.append(command)
        elif isinstance(command, commands.SendAway):
            self.agents.pop(command.connection, None)
        elif isinstance(command, commands.LoseLeases):
            assert set(command.leases) <= self.builds, "V5: a lease was lost twice"
            self.builds -= set(command.leases)
        elif isinstance(command, commands.Forget):
            assert not self.exists, "V2: forgotten while it runs"
            self.forgotten = True

    def tick(self) -> float:
        self.at += 0.5
        return self.at

    def new(self, prefix: str) -> str:
        return f"{prefix}{next(self.fresh)}"

    # --- what may happen -------------------------------------------------------------------

    @precondition(lambda self: not self.forgotten)
    @rule()
    def want(self) -> None:
        self.happen(events.Wanted(at=self.tick(), instance=self.new("I"), cause="build"))

    @rule()
    def unwant(self) -> None:
        self.happen(events.Unwanted(at=self.tick(), cause="nobody"))

    @precondition(lambda self: self.creating is not None)
    @rule(outcome=st.sampled_from(["ok", "failed", "failed but done"]))
    def answer_create(self, outcome: str) -> None:
        assert self.creating is not None
        instance, self.creating = self.creating, None
        if outcome != "failed":
            self.exists.add(instance)
        if outcome == "ok":
            self.happen(events.Created(at=self.tick(), instance=instance, handle={"id": instance}))
        else:
            self.happen(events.CreateFailed(at=self.tick(), instance=instance, error=outcome))

    # A driver is asked one thing at a time (P10): a destroy waits for the create's answer.
    @precondition(lambda self: self.destroying is not None and self.creating is None)
    @rule(outcome=st.sampled_from(["ok", "failed", "failed but done"]))
    def answer_destroy(self, outcome: str) -> None:
        assert self.destroying is not None
        instance, self.destroying = self.destroying, None
        if outcome != "failed":
            self.exists.discard(instance)
        if outcome == "ok":
            self.happen(events.Destroyed(at=self.tick(), instance=instance))
        else:
            self.happen(events.DestroyFailed(at=self.tick(), instance=instance, error=outcome))

    @precondition(lambda self: self.exists)
    @rule(
        resumable=st.booleans(), process=st.sampled_from([None, "n1", "n2"]), proven=st.booleans()
    )
    def attach(self, resumable: bool, process: str | None, proven: bool) -> None:
        instance = min(self.exists)
        connection = self.new("c")
        epoch = self.worker.epoch if self.is_current(instance) else 0
        self.agents[connection] = (instance, epoch)
        self.happen(
            events.Attached(
                at=self.tick(),
                instance=instance,
                epoch=epoch,
                connection=connection,
                resumable=resumable,
                process=process,
                proven=proven,
            )
        )

    def is_current(self, instance: str) -> bool:
        return self.worker.instance is not None and self.worker.instance.id == instance

    @precondition(lambda self: self.agents)
    @rule()
    def detach(self) -> None:
        connection = min(self.agents)
        del self.agents[connection]
        self.happen(events.Detached(at=self.tick(), connection=connection, cause="cut"))

    @precondition(lambda self: self.asked)
    @rule(met=st.booleans(), late=st.booleans())
    def examine(self, met: bool, late: bool) -> None:
        """Whichever was asked: also the one that a reconnect or a redefinition has overtaken."""
        asked = self.asked.pop(0 if late else -1)
        before = self.worker
        self.happen(events.Examined(at=self.tick(), exam=asked.exam, met=met, cause="looked"))
        if asked.exam != before.exam:
            assert self.worker is before, "a late answer changed something"

    @precondition(lambda self: why_not_leasable(self.worker) is None)
    @rule()
    def lease(self) -> None:
        assert self.worker.gate is Gate.OPEN, "V11: leased before it was looked at"
        lease = self.new("L")
        self.builds.add(lease)
        assert self.worker.uses_left > 0, "an instance is used more often than it is good for"
        self.happen(events.Leased(at=self.tick(), lease=lease))

    @precondition(lambda self: self.builds)
    @rule(finished=st.booleans(), clean=st.booleans())
    def release(self, finished: bool, clean: bool) -> None:
        lease = min(self.builds)
        self.builds.discard(lease)
        self.happen(
            events.Released(
                at=self.tick(), lease=lease, finished=finished, clean=clean, cause="over"
            )
        )

    @precondition(lambda self: why_not_askable(self.worker) is None)
    @rule(keep=st.booleans(), wait_s=st.sampled_from([0.0, 60.0]))
    def person_asks(self, keep: bool, wait_s: float) -> None:
        at = self.tick()
        lease = OperatorLease(self.new("P"), "ann", at, at + wait_s, ttl_s=300.0, keep=keep)
        self.happen(events.PersonAsked(at=at, lease=lease))

    @precondition(lambda self: self.worker.person is not None)
    @rule(renews=st.booleans(), stale=st.booleans())
    def person_says(self, renews: bool, stale: bool) -> None:
        assert self.worker.person is not None
        at, lease = self.tick(), "P0" if stale else self.worker.person.id
        before = self.worker
        if renews:
            renewed = events.PersonRenewed(
                at=at, lease=lease, until=at + 60, ttl_s=60, reason=None, by="ann"
            )
            self.happen(renewed)
        else:
            self.happen(events.PersonLeft(at=at, lease=lease, cause="released"))
        if stale:
            assert self.worker is before, "V5: a lease that is over changed something"

    @rule(mode=st.sampled_from(Mode), for_s=st.sampled_from([None, 0.5, 60.0]))
    def order(self, mode: Mode, for_s: float | None) -> None:
        at = self.tick()
        until = None if for_s is None or mode is Mode.ACTIVE else at + for_s
        self.happen(events.ModeSet(at=at, mode=mode, reason=None, by="ann", until=until))

    @rule(alarm=st.booleans())
    def refuse(self, alarm: bool) -> None:
        before = self.worker
        self.happen(events.Refused(at=self.tick(), cause="somebody else", alarm=alarm))
        assert self.worker is before

    @precondition(lambda self: self.worker.timers)
    @rule(pick=st.randoms(use_true_random=False))
    def time_passes(self, pick: object) -> None:
        timer = min(self.worker.timers, key=lambda each: self.worker.timers[each])
        self.at = max(self.at, self.worker.timers[timer])
        self.happen(events.TimerFired(at=self.at, timer=timer))

    @precondition(lambda self: self.worker.instance is not None and self.creating is None)
    @rule(answer=st.sampled_from(["truth", "unknown"]))
    def inspect(self, answer: str) -> None:
        assert self.worker.instance is not None
        instance = self.worker.instance.id
        presence = Presence.RUNNING if instance in self.exists else Presence.GONE
        if answer == "unknown":
            presence = Presence.UNKNOWN
        self.happen(
            events.Inspected(at=self.tick(), instance=instance, presence=presence, evidence="seen")
        )

    @precondition(lambda self: self.worker.instance is not None)
    @rule()
    def steal_token(self) -> None:
        assert self.worker.instance is not None
        stolen = self.worker.instance.id
        self.happen(events.Compromised(at=self.tick(), instance=stolen, cause="used twice"))

    @precondition(lambda self: self.exists)
    @rule()
    def lose_instance(self) -> None:
        self.exists.pop()

    @rule(policy=POLICIES, restart=st.booleans())
    def redefine(self, policy: Policy, restart: bool) -> None:
        max_builds = max(policy.max_builds, len(self.worker.leases), 1)
        changed = replace(policy, max_builds=max_builds)
        self.happen(events.Redefined(at=self.tick(), policy=changed, restart=restart))

    @rule()
    def stop_hub(self) -> None:
        self.happen(events.HubStopping(at=self.tick()))

    @rule(created=st.booleans())
    def kill_hub(self, created: bool) -> None:
        """kill -9: what was asked may have happened; memory is gone, the row is not (K1 to K11)."""
        if self.creating is not None and created:
            self.exists.add(self.creating)
        self.creating = self.destroying = None
        self.agents.clear()
        self.asked.clear()
        instance = self.worker.instance
        kept = None if instance is None else Instance(instance.id, instance.epoch, instance.handle)
        self.worker = replace(
            self.worker,
            instance=kept,
            connection=None,
            gate=Gate.OPEN,
            exam=0,
            resumable=False,
            timers={},
            destroying=False,
        )
        self.happen(events.Recovered(at=self.tick()))

    # --- what must hold -------------------------------------------------------------------

    @invariant()
    def leases_are_the_builds_held(self) -> None:
        if hasattr(self, "worker"):
            assert set(self.worker.leases) == self.builds

    @invariant()
    def what_exists_is_owned(self) -> None:
        """V2: whatever runs is the instance the row names."""
        if hasattr(self, "worker") and self.exists:
            current = self.worker.instance.id if self.worker.instance else None
            assert self.exists == {current}

    def teardown(self) -> None:
        """V17: once faults stop and the owner wants it stopped, the worker comes to rest."""
        if not hasattr(self, "worker"):
            return
        self.happen(events.ModeSet(at=self.tick(), mode=Mode.STOPPED, reason=None, by="end"))
        for _ in range(20):
            if self.worker.state is State.LATENT:
                break
            if self.creating is not None:
                self.answer_create("ok")
            elif self.destroying is not None:
                self.answer_destroy("ok")
            elif Timer.DESTROY in self.worker.timers:
                self.time_passes(None)
        assert self.worker.state is State.LATENT
        assert not self.exists
        assert not self.builds


TestWorkerLife = WorkerLife.TestCase
TestWorkerLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
