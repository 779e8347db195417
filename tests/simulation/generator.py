"""Random scenarios: a fleet, people who use it, and everything that can go wrong, from one seed.

Several actors go about their business at once for a few minutes: users submit and cancel,
operators order, and fate breaks what the seed has chosen to break (some seeds break one thing only,
some everything). Then the faults stop and the world has to come to rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import crash_points
from simulation.crashes import dies
from simulation.loop import outside
from simulation.machine import FREE_MB, Machine, script
from simulation.observer import Violated
from simulation.provider import Outcome
from simulation.world import CONVERGENCE_S, HubDied, World, simulate

from hostler_hub.errors import HubError
from hostler_hub.lifecycle.model import Gate
from hostler_hub.store.errors import StoreUnavailable

FATES = (
    "provider",
    "partitions",
    "cuts",
    "agents",
    "machines",
    "suspensions",
    "kills",
    "traps",
    "stops",
    "stalls",
    "disk",
    "clock",
    "resets",
    "unfit",
)
KNOBS = {"provider", "unfit"}
"""Fates that are asked what becomes of something; the others strike by themselves."""
COMMITS = (
    "Wanted",
    "Created",
    "Attached",
    "Examined",
    "Leased",
    "append",
    "Runner._finish",
    "Released",
)
POINTS = (*crash_points.POINTS, *(f"{w} commit {c}" for w in ("before", "after") for c in COMMITS))
EXPECTS = (None, {"disk_free_mb": 20_000}, {"disk_free_mb": 20_000})
MODES = ("active", "active", "paused", "draining", "stopped")
UNCLOSED = "part did not close in time"
REFUSALS = (HubDied, HubError, StoreUnavailable)


@dataclass
class Plan:
    """What a seed has chosen."""

    seed: int
    random: random.Random
    names: list[str]
    fates: set[str]
    lasts_s: float
    lease_ttl_s: float

    @classmethod
    def of(cls, seed: int) -> Plan:
        chance = random.Random(f"plan {seed}")
        names = [f"w{n}" for n in range(chance.randint(1, 4))]
        some = chance.choice([0.1, 0.3, 0.6, 1.0])
        fates = {fate for fate in FATES if chance.random() < some}
        lasts_s, ttl_s = chance.uniform(40, 200), chance.choice([70.0, 100.0])
        return cls(seed, chance, names, fates, lasts_s, ttl_s)

    def __str__(self) -> str:
        fates = ", ".join(sorted(self.fates)) or "no faults"
        return f"seed {self.seed}: {len(self.names)} workers, {self.lasts_s:.0f} s, {fates}"


def run(seed: int, tamper: Callable[[World], None] = lambda _: None) -> World:
    """One seed's world, to its end. Raises AssertionError with the history as a note."""
    plan = Plan.of(seed)

    async def scenario(world: World) -> None:
        world.note(str(plan))
        tamper(world)
        await _Actors(world, plan).play()

    return simulate(scenario, seed, lease_ttl_s=plan.lease_ttl_s)


class _Actors:
    def __init__(self, world: World, plan: Plan) -> None:
        self._world = world
        self._plan = plan
        self._chance = plan.random
        self._until = world.loop.now + plan.lasts_s
        self._wanted: dict[str, dict[str, Any]] = {}
        self._work_s: dict[str, float] = {}

    async def play(self) -> None:
        world, plan = self._world, self._plan
        for name in plan.names:
            await self._define(name)
        if "provider" in plan.fates:
            world.provider.choose = self._outcome
        if "unfit" in plan.fates:
            world.provider.free_mb = self._free_mb
        actors: list[Coroutine[Any, Any, None]] = [self._users(), self._operators()]
        actors += [getattr(self, f"_fate_{fate}")() for fate in sorted(plan.fates - KNOBS)]
        await asyncio.gather(*actors)
        await self._make_up()

    # --- people -------------------------------------------------------------------------------

    async def _users(self) -> None:
        chance = self._chance
        for number in range(chance.randint(3, 12)):
            await self._pause(self._plan.lasts_s / 8)
            cancels = chance.random() < 0.15
            asyncio.ensure_future(self._submit(f"key-{number}", cancels))  # noqa: RUF006

    async def _submit(self, key: str, cancels: bool) -> None:
        chance, world = self._chance, self._world
        spec: dict[str, Any] = {"retry": {"on_loss": chance.choice([0, 2, 2, 5])}}
        if chance.random() < 0.3:
            spec["requires"] = {"worker": chance.choice(self._plan.names)}
        if chance.random() < 0.1:
            spec["timeout_s"] = chance.uniform(5, 30)
        duration_s = chance.choice([0.05, 1.0, 5.0, 15.0, 40.0])
        argv = script(
            duration_s=duration_s,
            rc=chance.choice([0, 0, 0, 1]),
            lines=chance.randint(1, 6),
            survivors=1 if "resets" in self._plan.fates and chance.random() < 0.2 else 0,
        )
        spec["steps"] = [
            {"name": f"step {n}", "command": argv} for n in range(chance.choice([1, 1, 2]))
        ]
        build = None
        while build is None and world.loop.now < self._until + CONVERGENCE_S:
            with contextlib.suppress(HubDied, StoreUnavailable):  # ask again with the same key
                try:
                    build = await world.submit(key=key, **spec)
                except HubError:
                    return  # say: its worker is not defined just now
            await world.sleep(chance.uniform(0.5, 3))
        if build is not None:
            self._work_s[build] = duration_s * len(spec["steps"])
        if build is not None and cancels:
            await self._pause(20)
            with contextlib.suppress(*REFUSALS):
                await world.cancel(build)

    async def _operators(self) -> None:
        chance = self._chance
        orders = [self._order_mode, self._order_mode, self._redefine, self._remove, self._wake]
        while self._world.loop.now < self._until:
            await self._pause(40)
            with contextlib.suppress(*REFUSALS):
                await chance.choice(orders)(chance.choice(self._plan.names))

    async def _define(self, name: str, note: str = "") -> None:
        chance = self._chance
        self._wanted.setdefault(
            name,
            {
                "max_builds": chance.choice([1, 1, 1, 2, 3]),
                "build_wait_timeout": chance.choice([0, 5, 30, -1]),
                "missing_timeout": chance.choice([20, 60]),
                "boot_s": chance.choice([0.5, 3.0, 12.0]),
            },
        )
        if "unfit" in self._plan.fates:
            self._wanted[name].setdefault("expects", chance.choice(EXPECTS))
        given = dict(self._wanted[name])
        options = {"boot_s": given.pop("boot_s"), "note": note}
        await self._world.define(name, **given, driver_options=options)

    async def _order_mode(self, name: str) -> None:
        mode = self._chance.choice(MODES)
        self._world.note(f"operator: {name} {mode}")
        await self._world.set_mode(mode, name)

    async def _redefine(self, name: str) -> None:
        self._world.note(f"operator: redefines {name}")
        self._wanted.pop(name, None)
        await self._define(name, note=self._chance.choice("abc"))

    async def _remove(self, name: str) -> None:
        self._world.note(f"operator: removes {name}")
        await self._world.remove(name, force=self._chance.random() < 0.5)

    async def _wake(self, name: str) -> None:
        order = self._chance.choice([self._world.substantiate, self._world.insubstantiate])
        await order(name)

    # --- fate --------------------------------------------------------------------------------

    def _outcome(self, verb: str, _worker: str) -> Outcome:
        chance = self._world.random
        if chance.random() < 0.7 or self._world.loop.now > self._until:
            return Outcome.OK
        usual = [Outcome.FAILED, Outcome.FAILED_DONE, Outcome.SLOW, Outcome.HANGS]
        extra = {
            "create": [Outcome.REFUSED, Outcome.LATE, Outcome.HANGS_DONE, Outcome.THROTTLED],
            "destroy": [Outcome.HANGS_DONE, Outcome.THROTTLED, Outcome.LATE],
            "inspect": [Outcome.UNKNOWN, Outcome.UNKNOWN],
        }
        return chance.choice(usual + extra[verb])

    def _free_mb(self, _worker: str) -> int:
        is_fit = self._world.random.random() < 0.6 or self._world.loop.now > self._until
        return FREE_MB if is_fit else 512

    async def _often(self, mean_s: float, strike: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while self._world.loop.now < self._until:
            await self._pause(2 * mean_s)
            await strike()

    def _victim(self) -> Machine | None:
        machines = [m for m in self._world.provider.machines.values() if not m.ended]
        return self._chance.choice(machines) if machines else None

    async def _fate_partitions(self) -> None:
        async def strike() -> None:
            if (machine := self._victim()) is not None:
                self._world.note(f"fate: {machine.worker} is cut off")
                self._world.network.partition(machine.id)
                await self._pause(self._chance.choice([5, 60, 250]))
                self._world.network.heal(machine.id)

        await self._often(30, strike)

    async def _fate_cuts(self) -> None:
        async def strike() -> None:
            if (machine := self._victim()) is not None:
                for connection in self._world.network.of(machine.id):
                    self._world.note(f"fate: a connection of {machine.worker} goes half-open")
                    connection.cut()

        await self._often(25, strike)

    async def _fate_agents(self) -> None:
        async def strike() -> None:
            if (machine := self._victim()) is not None:
                self._world.note(f"fate: the agent of {machine.worker} dies")
                machine.kill_agent()
                await self._pause(4)
                with outside():
                    machine.start_agent()

        await self._often(40, strike)

    async def _fate_machines(self) -> None:
        async def strike() -> None:
            if (machine := self._victim()) is not None:
                silently = self._chance.random() < 0.5
                self._world.note(f"fate: {machine.worker}'s machine is taken away")
                if self._chance.random() < 0.5:
                    machine.crash()
                else:
                    self._world.provider.take_away(machine.id, silently=silently)

        await self._often(60, strike)

    async def _fate_suspensions(self) -> None:
        async def strike() -> None:
            machine = self._victim()
            if machine is None or machine.process is None or machine.process.dead:
                return
            process = machine.process
            self._world.note(f"fate: {machine.worker}'s machine is suspended")
            process.suspend()
            await self._pause(self._chance.choice([10, 100, 300]))
            if not process.dead:
                process.wake()

        await self._often(40, strike)

    async def _fate_kills(self) -> None:
        async def strike() -> None:
            self._world.kill_hub()
            await self._back()

        await self._often(30, strike)

    async def _fate_traps(self) -> None:
        async def strike() -> None:
            with dies(self._world, self._chance.choice(POINTS), self._chance.randint(1, 3)) as trap:
                while not trap.sprung and self._world.loop.now < self._until:
                    await self._world.sleep(1)
            if trap.sprung:
                await self._back()

        await self._often(10, strike)

    async def _fate_stops(self) -> None:
        async def strike() -> None:
            if self._world.hub_lives:
                await self._stop()
                await self._back()

        await self._often(60, strike)

    async def _stop(self) -> None:
        """V18; what waits for a disk or for a hub that stands still itself may take longer."""
        errors = len(self._world.errors)
        took_s = await self._world.stop_hub()
        if self._plan.fates & {"disk", "stalls"}:
            said = self._world.errors[errors:]
            self._world.errors[errors:] = [each for each in said if UNCLOSED not in each]
        elif took_s > self._world.settings.shutdown_deadline_s + 10:
            raise Violated(f"V18 the hub took {took_s:.0f} s to stop")

    async def _fate_stalls(self) -> None:
        async def strike() -> None:
            assert self._world.run is not None
            process = self._world.run.process
            self._world.note("fate: the hub stands still")
            process.stop()
            await self._pause(50)
            process.resume()

        await self._often(60, strike)

    async def _fate_disk(self) -> None:
        async def strike() -> None:
            self._world.note("fate: the disk stands still")
            self._world.storage.frozen = True
            await self._pause(40)
            self._world.storage.frozen = False

        await self._often(60, strike)

    async def _fate_clock(self) -> None:
        async def strike() -> None:
            self._world.jump_s += self._chance.choice([-86400, -3600, -5, 5, 3600, 86400])
            self._world.note("fate: the hub's clock is set")

        await self._often(40, strike)

    async def _fate_resets(self) -> None:
        async def strike() -> None:
            if (machine := self._victim()) is not None:
                machine.faults ^= {"reset"}

        await self._often(30, strike)

    # --- between and after ----------------------------------------------------------------------

    async def _pause(self, longest_s: float) -> None:
        await self._world.sleep(self._chance.uniform(0.01, longest_s))

    async def _back(self) -> None:
        """Somebody starts the hub again, unless somebody else has."""
        await self._pause(15)
        run = self._world.run
        if run is None or run.process.dead:
            await self._world.start_hub()

    async def _make_up(self) -> None:
        """Faults stop, operators take their orders back; from then on nobody helps."""
        world = self._world
        world.note("the faults stop")
        world.stop_faults()
        for machine in world.provider.machines.values():
            machine.faults.clear()
            machine.free_mb = FREE_MB
        if not world.hub_lives:
            await world.start_hub()
        await world.until(lambda: not _removing(world), CONVERGENCE_S, "V17 removal lasts")
        for name in self._plan.names:
            await self._define(name)
        for name in self._plan.names:
            if world.life(name).mode.value != "active":
                await world.set_mode("active", name)
        # A machine that has told of itself before it was mended may yet be found unfit.
        await world.until(lambda: not _asking(world), CONVERGENCE_S, "V17 an exam lasts")
        ends = [world.life(name).quarantine_until or 0.0 for name in self._plan.names]
        left_s = max(0.0, max(ends) - world.wall())
        # Five minutes beyond what the fleet needs in any case, one build after the other.
        work_s = sum(s for one, s in self._work_s.items() if not world.build(one)["finished_at"])
        await world.converge(CONVERGENCE_S + min(left_s, 3600.0) + work_s)


def _removing(world: World) -> bool:
    registry = world.hub.workers._registry  # type: ignore[attr-defined]
    return any(entry.life.removing for entry in registry)


def _asking(world: World) -> bool:
    registry = world.hub.workers._registry  # type: ignore[attr-defined]
    return any(entry.life.gate is Gate.ASKING for entry in registry)
