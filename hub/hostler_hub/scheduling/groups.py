"""The use cases on groups of workers: define, remove, read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from hostler_hub.errors import InvalidRequest, NotFound
from hostler_hub.runtime.clock import Clock, instant
from hostler_hub.scheduling.pool_key import PoolKey
from hostler_hub.scheduling.pool_policy import PoolPolicy
from hostler_hub.scheduling.pools import Census, Pool
from hostler_hub.specs.group import GroupDefinition
from hostler_hub.store import groups as group_rows
from hostler_hub.store.engine import Store

_log = structlog.get_logger(__name__)


class Groups:
    """Answers and orders about groups. ``on_defined``: something else may be possible now."""

    def __init__(
        self, store: Store, clock: Clock, policy: PoolPolicy, on_defined: Callable[[], None]
    ) -> None:
        self._store = store
        self._clock = clock
        self._policy = policy
        self._on_defined = on_defined
        self._known: dict[str, GroupDefinition] = {}
        self._defining = asyncio.Lock()

    async def load(self) -> None:
        rows = await self._store.read(group_rows.load_all)
        known = [GroupDefinition.model_validate(row["definition"]) for row in rows]
        self._known = {each.name: each for each in known}
        await self._policy.load(self._store, known)

    async def define(
        self, definitions: Sequence[GroupDefinition], *, dry_run: bool, by: str
    ) -> list[dict[str, Any]]:
        """Create or change groups, all or none; what is already so is left alone."""
        _refuse_twice(definitions)
        async with self._defining:  # two plays at once: the second sees what the first did
            results = [self._compare(each) for each in definitions]
            changed = {result["name"] for result in results if result["changed"]}
            todo = [each for each in definitions if each.name in changed]
            if todo and not dry_run:
                at = self._clock.now()
                rows = [
                    {
                        "name": each.name,
                        "definition": each.public(),
                        "defined_by": by,
                        "defined_at": at,
                    }
                    for each in todo
                ]
                await self._store.write(group_rows.put, rows)
                self._take({**self._known, **{each.name: each for each in todo}}, by)
        return results

    async def remove(self, names: Sequence[str], *, dry_run: bool, by: str) -> list[dict[str, Any]]:
        """Remove groups; their workers stay, and have no limits in common any more."""
        async with self._defining:
            wanted = list(dict.fromkeys(names))
            todo = [name for name in wanted if name in self._known]
            if todo and not dry_run:
                await self._store.write(group_rows.delete, todo)
                self._take({n: each for n, each in self._known.items() if n not in todo}, by)
        return [{"name": name, "changed": name in todo, "state": "absent"} for name in wanted]

    def listing(self) -> dict[str, Any]:
        """Every group by name: those defined, and those that only workers name."""
        now = self._clock.now()
        pools = self._policy.pools()
        return {"items": [group_view(*pools[key], now) for key in sorted(pools) if key.is_group]}

    def view(self, name: str) -> dict[str, Any]:
        """One group; NotFound when neither it is defined nor a worker names it."""
        pools = self._policy.pools()
        key = PoolKey(name)
        if key not in pools:
            raise NotFound(f"there is no group {name}")
        return group_view(*pools[key], self._clock.now())

    def _compare(self, definition: GroupDefinition) -> dict[str, Any]:
        known = self._known.get(definition.name)
        return {
            "name": definition.name,
            "changed": known != definition,
            "created": known is None,
            "before": known and known.public(),
            "after": definition.public(),
        }

    def _take(self, known: dict[str, GroupDefinition], by: str) -> None:
        self._known = known
        self._policy.define(list(known.values()))
        _log.info("groups defined", by=by, count=len(known))
        self._on_defined()


def _refuse_twice(definitions: Sequence[GroupDefinition]) -> None:
    seen: set[str] = set()
    for index, each in enumerate(definitions):
        if each.name in seen:
            text = f"group {each.name} is defined twice"
            raise InvalidRequest(text, pointer=f"/groups/{index}/name")
        seen.add(each.name)


def group_view(pool: Pool, counted: Census, now: float) -> dict[str, Any]:
    holds, budget, breaker = pool.numbers(now), pool.budget(counted, now), pool.breaker
    held = pool.held(counted, now)
    return {
        "name": pool.key.name,
        "definition": pool.group and pool.group.public(),
        "now": {
            "min_idle": holds.min_idle,
            "max_instances": holds.max_instances,
            "schedule": holds.schedule,
            "until": instant(holds.until),
        },
        "workers": counted.workers,
        "instances": counted.instances,
        "starting": counted.starting,
        "up": counted.up,
        "idle": len(counted.idle),
        "stopping": counted.stopping,
        "lost": counted.detached,
        "leases": counted.leases,
        "starts_last_minute": len(pool.starts),
        "startable": {
            "starts": budget.starts,
            "rule": budget.rule or None,
            "why": budget.why or None,
            "until": instant(budget.until),
        },
        "breaker": {
            "state": breaker.state(now),
            "failures": breaker.failures,
            "until": instant(breaker.open_until),
            "error": breaker.error or None,
        },
        "held_since": instant(pool.held_since) if held else None,
    }
