"""Driver ``fake``: instances that exist in memory only, with configurable faults of a provider.

For tests, simulations and benchmarks of the hub. With ``attach`` an instance has an agent
(``fake_agent``) that answers every command at once with rc 0, so that a fleet of thousands fits one
machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

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
from hostler_hub.drivers.fake.agent import FakeAgent
from hostler_hub.drivers.handle import Handle
from hostler_hub.lifecycle.model import Presence


class FakeOptions(DriverOptions):
    """The options: which faults to simulate. Times are in seconds on the event loop's clock."""

    attach: bool = False  # bring an agent that attaches and answers at once
    slow_boot_s: float = 0.0  # between create's answer and the agent's attach
    # create: works / refuses for good / fails / fails but was done (P1) / never answers (L16)
    create: Literal["ok", "refuse", "fail", "fail_done", "hang"] = "ok"
    # destroy: works / says no and keeps it / says no but did it (P13)
    destroy: Literal["ok", "fail", "fail_done"] = "ok"
    inspect: Literal["ok", "unknown", "fail"] = "ok"
    lost_after_s: float | None = None  # the provider takes the instance away (P15)
    region: str = ""  # where it lives; a destroy anywhere else finds nothing
    keep: str = ""  # keep its machine for the next instance of the same recipe: this one

    @property
    def place(self) -> str:
        return self.region

    @property
    def failure_domains(self) -> tuple[str, ...]:
        return (f"region {self.region}",) if self.region else ()

    @property
    def recipe(self) -> str:
        return self.keep


class FakeHandle(Handle):
    """The instance's ULID, by which the fake provider finds it."""

    DRIVER = "fake"

    instance: str


@dataclass(slots=True)
class FakeInstance:
    """One instance at the fake provider."""

    worker: str
    instance: str
    epoch: int
    region: str = ""
    agent: FakeAgent | None = None
    ending: asyncio.TimerHandle | None = None
    spare: str = ""

    def handle(self) -> Mapping[str, Any]:
        """The instance's handle as a JSON object."""
        return FakeHandle(instance=self.instance).dump()


@dataclass
class FakeProvider:
    """The fake provider: its instances, and a record of the calls. It outlives a driver, as a real
    provider does.
    """

    instances: dict[str, FakeInstance] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    """Instances that lists do not show yet, or no longer show (P6)."""
    mute: bool = False
    """Whether every list call fails."""
    mute_regions: set[str] = field(default_factory=set)
    """The regions whose list calls fail."""
    calls: list[tuple[str, str]] = field(default_factory=list)


class FakeDriver:
    """A driver that uses a FakeProvider of its own, or one that the caller passes in to
    inspect it.
    """

    name: ClassVar[str] = "fake"
    capabilities: ClassVar[Capabilities] = Capabilities(create_deadline_s=5.0)
    options_model: ClassVar[type[DriverOptions]] = FakeOptions

    def __init__(self, environment: Environment, provider: FakeProvider | None = None) -> None:
        self._environment = environment
        self.provider = provider or FakeProvider()

    async def create(self, spec: InstanceSpec) -> Mapping[str, Any]:
        options = FakeOptions.of(spec.options)
        self.provider.calls.append(("create", spec.instance))
        already = self.provider.instances.get(spec.instance)
        if already is not None:
            return already.handle()
        if options.create == "refuse":
            raise OptionsRefused("fake: these options can never work")
        if options.create == "fail":
            raise ProviderFailed("fake: the provider is out of capacity")
        if options.create == "hang":
            await asyncio.Event().wait()
        await self._reuse_spare(spec, options)
        made = self._make(spec, options)
        if options.create == "fail_done":
            raise ProviderFailed("fake: gateway timeout (and yet it was done)")
        return made.handle()

    async def _reuse_spare(self, spec: InstanceSpec, options: FakeOptions) -> None:
        for each in list(self.provider.instances.values()):
            if options.keep and (each.worker, each.spare) == (spec.worker, options.keep):
                await self.take_away(each.instance)

    async def inspect(self, ref: InstanceRef) -> Inspection:
        options = FakeOptions.of(ref.options)
        self.provider.calls.append(("inspect", ref.instance))
        if options.inspect == "fail":
            raise ProviderFailed("fake: the provider does not answer")
        if options.inspect == "unknown":
            return Inspection(Presence.UNKNOWN, "fake: not listed yet")
        found = self._find(ref.instance, options)
        if found is None or found.spare:
            return Inspection(Presence.GONE, "fake: no such instance")
        return Inspection(Presence.RUNNING, "fake: running", found.handle())

    async def destroy(self, ref: InstanceRef) -> None:
        options = FakeOptions.of(ref.options)
        self.provider.calls.append(("destroy", ref.instance))
        if self._find(ref.instance, options) is not None:
            if options.destroy == "fail":
                raise ProviderFailed("fake: the provider refuses to stop it")
            await self.take_away(ref.instance)
        if options.destroy == "fail_done":
            raise ProviderFailed("fake: gateway timeout (and yet it was stopped)")

    async def keep(self, ref: InstanceRef) -> bool:
        options = FakeOptions.of(ref.options)
        self.provider.calls.append(("keep", ref.instance))
        kept = self._find(ref.instance, options)
        if kept is None:
            return False
        await self.take_away(ref.instance)
        kept.spare, kept.agent = options.keep, None
        self.provider.instances[ref.instance] = kept
        return True

    async def list_owned(self, places: Sequence[Mapping[str, Any]]) -> Sequence[Owned]:
        regions = {place.get("region", "") for place in places}
        if self.provider.mute or self.provider.mute_regions & regions:
            raise ProviderFailed("fake: the provider does not answer")
        return [
            Owned(
                each.instance,
                each.epoch,
                each.handle(),
                each.worker,
                f"fake-{each.instance}",
                spare=each.spare,
            )
            for each in self.provider.instances.values()
            if each.instance not in self.provider.hidden
            and (not each.spare or each.region in regions)
        ]

    async def evidence(self, ref: InstanceRef) -> Mapping[str, str]:
        self.provider.calls.append(("evidence", ref.instance))
        return {"console": f"fake: last words of {ref.instance}\n"}

    async def aclose(self) -> None:
        """Stop the agents, which run in this process. The provider still lists the instances."""
        agents = [each.agent for each in self.provider.instances.values() if each.agent]
        await asyncio.gather(*(agent.aclose() for agent in agents))

    async def take_away(self, instance: str) -> None:
        """End an instance from outside, as a spot market or an operator at the provider would."""
        found = self.provider.instances.pop(instance, None)
        if found is None:
            return
        if found.ending is not None:
            found.ending.cancel()
        if found.agent is not None:
            await found.agent.aclose()

    def _find(self, instance: str, options: FakeOptions) -> FakeInstance | None:
        found = self.provider.instances.get(instance)
        return found if found is not None and found.region == options.region else None

    def _make(self, spec: InstanceSpec, options: FakeOptions) -> FakeInstance:
        made = FakeInstance(spec.worker, spec.instance, spec.epoch, options.region)
        self.provider.instances[spec.instance] = made
        if options.attach:
            url = self._environment.connect_url
            made.agent = FakeAgent(url, spec, boot_s=options.slow_boot_s)
            made.agent.start()
        if options.lost_after_s is not None:
            loop = asyncio.get_running_loop()
            made.ending = loop.call_later(options.lost_after_s, self._lose, spec.instance)
        return made

    def _lose(self, instance: str) -> None:
        found = self.provider.instances.get(instance)
        if found is not None and found.agent is not None:
            found.agent.stop()
        self.provider.instances.pop(instance, None)
