"""How long the hub thinks before it acts: one look at a queue and a fleet.

The look is the dispatcher's own, from the registry to the plan, in this process: no agent, no
store. Nothing is remembered from an earlier look, as if every definition had just changed.
"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.rows import Goal, Plan, Reference, Row, Samples
from hostler_hub.lifecycle import Instance, Policy, State, Worker
from hostler_hub.scheduling.dispatcher import candidate
from hostler_hub.scheduling.matching import Roster
from hostler_hub.scheduling.planner import Snapshot, Waiting, plan
from hostler_hub.scheduling.pool_key import pool_of
from hostler_hub.specs.build import BuildSpec
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.workers.registry import Entry, Registry

_KINDS = 20
_LABELS = ("linux", "windows", "arm", "big", "gpu")


def measure(size: Plan, _directory: Path) -> list[Row]:
    count = size.workers
    small, large = count // 10, count * 10
    samples = Samples()
    for _ in size.each_round():
        samples.add("small", _look_s(small, _KINDS) / small * 1e6)
        samples.add("attached", _look_s(count, _KINDS))
        samples.add("latent", _look_s(count, _KINDS, latent=True))
        samples.add("own kinds", _look_s(count, count))
    for _ in size.each_round(most=3):
        samples.add("large", _look_s(large, _KINDS) / large * 1e6)
    second = Goal("value", "at most", 1.0)
    of = f"{count} builds on {count}"
    return [
        Row(f"decide, {of} attached workers", "s", samples["attached"], second),
        Row(f"decide, {of} latent workers", "s", samples["latent"], second),
        Row(f"decide, {of} workers, all asking differently", "s", samples["own kinds"], second),
        Row(
            f"decide, per build, {large} builds on {large} workers",
            "us",
            samples["large"],
            Goal("ratio", "at most", 3.0),
            Reference(f"{small} on {small}", samples["small"]),
        ),
    ]


def _look_s(count: int, kinds: int, *, latent: bool = False) -> float:
    """Seconds of one look at as many builds as workers, all of which fit somewhere."""
    registry = _fleet(count, latent=latent)
    queue = [_build(number, kinds) for number in range(count)]
    roster = Roster(registry)
    began_at = time.perf_counter()
    matcher = roster.matcher()
    candidates = [candidate(entry, matcher, (pool_of(entry),)) for entry in registry]
    made = plan(queue, Snapshot(candidates, matcher))
    took_s = time.perf_counter() - began_at
    given = made.wanted if latent else made.leases
    if len(given) < count * 0.9:
        message = f"only {len(given)} of {count} builds were given a worker"
        raise RuntimeError(message)
    return took_s


def _fleet(count: int, *, latent: bool) -> Registry:
    registry = Registry()
    for number in range(count):
        name = f"w{number:05}"
        labels = ["any", _LABELS[number % len(_LABELS)]]
        definition = WorkerDefinition(name=name, driver="local", labels=labels)
        life = Worker(name, Policy())
        if not latent:
            life = Worker(
                name,
                Policy(),
                state=State.SUBSTANTIATED,
                epoch=1,
                instance=Instance(f"I{number}", 1, {}),
                connection=f"c{number}",
            )
        facts = {"memory_mb": 8000 + number % 50 * 1000, "cpus": 8, "os_id": "debian"}
        registry.add(Entry(definition, life, 1, facts=facts))
    return registry


def _build(number: int, kinds: int) -> Waiting:
    """Every one differs from the next in what it asks for, until the kinds are used up."""
    requires = {"labels": ["any"], "facts": [f"memory_mb >= {1000 + number % kinds}", "cpus >= 4"]}
    steps = [{"name": "run", "command": ["true"]}]
    spec = BuildSpec.model_validate({"requires": requires, "steps": steps})
    return Waiting(f"{number:026}", spec, 0, 0)
