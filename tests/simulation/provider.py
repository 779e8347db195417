"""A provider with every fault, and the driver that the hub has for it.

What is asked of the provider happens in the provider's own time: it goes on when the hub that
asked has died. Which *outcome* a call has is chosen by ``choose(verb, worker)``: by a script of the
test's, or at random.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from simulation.loop import VirtualLoop, outside
from simulation.machine import FREE_MB

from hostler_agent.machine.facts import USER
from hostler_hub.drivers.contract import (
    Capabilities,
    DriverOptions,
    Environment,
    Inspection,
    InstanceRef,
    InstanceSpec,
    Owned,
)
from hostler_hub.drivers.errors import OptionsRefused, ProviderFailed
from hostler_hub.lifecycle.model import Presence

if TYPE_CHECKING:
    from simulation.machine import Machine


class Outcome(StrEnum):
    """What becomes of one call."""

    OK = "ok"
    REFUSED = "refused"  # the owner's mistake, for good
    FAILED = "failed"
    FAILED_DONE = "failed but done"
    SLOW = "slow"  # done, late, within the deadline
    LATE = "late"  # done at once, said late
    THROTTLED = "throttled"
    UNKNOWN = "unknown"  # not listed yet, or not any more
    HANGS = "hangs"  # no answer, nothing done
    HANGS_DONE = "hangs, done"  # no answer, and yet it was done
    LIES = "lies"  # says it was done: breaks the contract, for tests of the tests


class SimulatedOptions(DriverOptions):
    """Free knobs, so that definitions can differ. Starts share an image, and its region."""

    region: str = ""
    image: str = ""
    boot_s: float = 1.0
    attaches: bool = True
    note: str = ""
    isolation: str = USER  # of the builds on its machines, as their agents tell

    @property
    def place(self) -> str:
        return self.region

    @property
    def failure_domains(self) -> tuple[str, ...]:
        region = (f"region {self.region}",) if self.region else ()
        return (f"image {self.image}", *region) if self.image else region


@dataclass
class Provider:
    """The other side: what exists, what was asked. Outlives every hub."""

    loop: VirtualLoop
    launch: Callable[[InstanceSpec, SimulatedOptions], Machine]
    latency_s: Callable[[], float]
    machines: dict[str, Machine] = field(default_factory=dict)
    creating: set[str] = field(default_factory=set)  # asked for, and not decided yet
    calls: list[tuple[float, str, str]] = field(default_factory=list)
    script: dict[str, deque[Outcome]] = field(default_factory=lambda: defaultdict(deque))
    choose: Callable[[str, str], Outcome] = lambda _verb, _worker: Outcome.OK
    watch: Callable[[str, str], None] = lambda _verb, _instance: None
    free_mb: Callable[[str], int] = lambda _worker: FREE_MB
    """The room on the disk of the worker's next machine."""
    slow_s: float = 40.0

    def will(self, verb: str, *outcomes: Outcome) -> None:
        """The next calls of that kind have these outcomes."""
        self.script[verb].extend(outcomes)

    def count(self, verb: str) -> int:
        return sum(each[1] == verb for each in self.calls)

    def asked(self, verb: str) -> list[float]:
        """When."""
        return [at for at, called, _ in self.calls if called == verb]

    async def create(self, spec: InstanceSpec) -> Mapping[str, Any]:
        options = SimulatedOptions.model_validate(dict(spec.options))

        def make() -> Mapping[str, Any]:
            self.creating.discard(spec.instance)
            if spec.instance not in self.machines:
                self.machines[spec.instance] = self.launch(spec, options)
            return self.machines[spec.instance].handle()

        self.creating.add(spec.instance)
        return await self._call("create", spec.worker, spec.instance, make)

    async def destroy(self, ref: InstanceRef) -> None:
        def remove() -> Mapping[str, Any]:
            if ref.instance in self.creating:  # it may still come: not found is not gone (P3)
                raise ProviderFailed("simulated: not to be seen yet")
            self.take_away(ref.instance)
            return {}

        await self._call("destroy", ref.worker, ref.instance, remove)

    async def inspect(self, ref: InstanceRef) -> Inspection:
        seen: list[Inspection] = []

        def look() -> Mapping[str, Any]:
            if ref.instance in self.creating:
                raise _NotListed
            machine = self.machines.get(ref.instance)
            if machine is None:
                seen.append(Inspection(Presence.GONE, "no such instance"))
            elif machine.ended:
                seen.append(Inspection(Presence.GONE, "exited", machine.handle()))
            else:
                seen.append(Inspection(Presence.RUNNING, "running", machine.handle()))
            return {}

        try:
            await self._call("inspect", ref.worker, ref.instance, look)
        except _NotListed:
            return Inspection(Presence.UNKNOWN, "not listed")
        return seen[0]

    def overlook(self, instance: str) -> Machine:
        """Say that it is gone while it lives on: a machine that nobody can reach any more."""
        return self.machines.pop(instance)

    def take_away(self, instance: str, *, silently: bool = False) -> None:
        """End a machine, by order or from outside."""
        machine = self.machines.pop(instance, None)
        if machine is not None:
            with outside():
                machine.end(silently=silently)

    async def _call(
        self, verb: str, worker: str, instance: str, do: Callable[[], Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        script = self.script[verb]
        outcome = script.popleft() if script else self.choose(verb, worker)
        self.calls.append((self.loop.now, verb, instance))
        self.watch(verb, instance)
        answer: asyncio.Future[Mapping[str, Any]] = self.loop.create_future()
        with outside():
            if outcome is Outcome.LATE:
                done = do()
                outcome, do = Outcome.SLOW, lambda: done
            latency_s = self.slow_s if outcome is Outcome.SLOW else self.latency_s()
            self.loop.call_later(latency_s, self._answer, outcome, verb, do, answer)
            if verb == "create":
                self.loop.call_later(latency_s, self.creating.discard, instance)
        return await answer

    def _answer(
        self,
        outcome: Outcome,
        verb: str,
        do: Callable[[], Mapping[str, Any]],
        answer: asyncio.Future[Mapping[str, Any]],
    ) -> None:
        result: Mapping[str, Any] = {}
        error: Exception | None = None
        if outcome in {Outcome.OK, Outcome.SLOW, Outcome.FAILED_DONE, Outcome.HANGS_DONE}:
            try:
                result = do()
            except ProviderFailed as failure:
                error = failure
        if outcome in _ERRORS:
            error = _ERRORS[outcome](f"simulated: {verb} {outcome.value}")
        if answer.cancelled() or outcome in {Outcome.HANGS, Outcome.HANGS_DONE}:
            return
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)
            answer.exception()  # whoever asked may be dead


class _NotListed(ProviderFailed):
    """An inspection's UNKNOWN."""


_ERRORS: dict[Outcome, type[Exception]] = {
    Outcome.REFUSED: OptionsRefused,
    Outcome.FAILED: ProviderFailed,
    Outcome.FAILED_DONE: ProviderFailed,
    Outcome.THROTTLED: ProviderFailed,
    Outcome.UNKNOWN: _NotListed,
}


class SimulatedDriver:
    """The hub's side. Holds nothing: after a restart it finds everything at the provider."""

    name: ClassVar[str] = "simulated"
    capabilities: ClassVar[Capabilities] = Capabilities(
        create_deadline_s=60.0, inspect_deadline_s=10.0, destroy_deadline_s=60.0
    )
    options_model: ClassVar[type[DriverOptions]] = SimulatedOptions
    provider: ClassVar[Provider]

    def __init__(self, environment: Environment) -> None:
        self.environment = environment

    async def create(self, spec: InstanceSpec) -> Mapping[str, Any]:
        return await self.provider.create(spec)

    async def inspect(self, ref: InstanceRef) -> Inspection:
        return await self.provider.inspect(ref)

    async def destroy(self, ref: InstanceRef) -> None:
        await self.provider.destroy(ref)

    async def list_owned(self, places: Sequence[Mapping[str, Any]]) -> Sequence[Owned]:
        del places
        return [
            Owned(each.instance, each.epoch, each.handle(), each.worker, each.instance)
            for each in self.provider.machines.values()
        ]

    async def aclose(self) -> None:
        """Nothing is held."""


def driver_for(provider: Provider) -> type[SimulatedDriver]:
    """A class of its own for each simulation, since drivers are made by class."""
    return type("SimulatedDriver", (SimulatedDriver,), {"provider": provider})
