"""The use cases on groups of workers: define, remove, read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from hostler_hub.errors import InvalidRequest, NotFound
from hostler_hub.runtime.clock import Clock
from hostler_hub.scheduling.group_views import (
    DefineGroupResult,
    GroupList,
    GroupView,
    RemoveGroupResult,
    group_view,
)
from hostler_hub.scheduling.pool_key import PoolKey
from hostler_hub.scheduling.pool_policy import PoolPolicy
from hostler_hub.scheduling.pools import Census, Pool
from hostler_hub.scheduling.start_breakers import StartBreakers
from hostler_hub.specs.group import GroupDefinition
from hostler_hub.store import groups as group_rows
from hostler_hub.store.engine import Store

_log = structlog.get_logger(__name__)


class Groups:
    """The use cases on groups. ``on_defined`` is called after each change, since it may
    allow other starts.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        policy: PoolPolicy,
        breakers: StartBreakers,
        on_defined: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._policy = policy
        self._breakers = breakers
        self._on_defined = on_defined
        self._known: dict[str, GroupDefinition] = {}
        self._defining = asyncio.Lock()

    async def load(self) -> None:
        """Load the groups from the store into the policy. Called once, when the hub starts."""
        rows = await self._store.read(group_rows.load_all)
        known = [GroupDefinition.model_validate(row["definition"]) for row in rows]
        self._known = {each.name: each for each in known}
        await self._policy.load(self._store, known)

    async def define(
        self, definitions: Sequence[GroupDefinition], *, dry_run: bool, by: str
    ) -> list[DefineGroupResult]:
        """Create or change groups, all or none; a group that has the definition already
        is left unchanged.

        ``dry_run``: only report what would change. Raises InvalidRequest if two definitions
        have one name.
        """
        _refuse_twice(definitions)
        async with self._defining:  # two plays at once: the second sees what the first did
            results = [self._compare(each) for each in definitions]
            changed = {result.name for result in results if result.changed}
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

    async def remove(
        self, names: Sequence[str], *, dry_run: bool, by: str
    ) -> list[RemoveGroupResult]:
        """Remove groups. Their workers stay, but no longer have limits in common. Unknown names are
        reported as unchanged.
        """
        async with self._defining:
            wanted = list(dict.fromkeys(names))
            todo = [name for name in wanted if name in self._known]
            if todo and not dry_run:
                await self._store.write(group_rows.delete, todo)
                self._take({n: each for n, each in self._known.items() if n not in todo}, by)
        return [
            RemoveGroupResult(name=name, changed=name in todo, state="absent") for name in wanted
        ]

    def listing(self) -> GroupList:
        """All groups by name: those that are defined, and those that only workers name."""
        now = self._clock.now()
        pools = self._policy.pools()
        return GroupList(
            items=[self._view(key, pools[key], now) for key in sorted(pools) if key.is_group]
        )

    def view(self, name: str) -> GroupView:
        """One group. Raises NotFound if the group is not defined and no worker names it."""
        pools = self._policy.pools()
        key = PoolKey(name)
        if key not in pools:
            raise NotFound(f"there is no group {name}")
        return self._view(key, pools[key], self._clock.now())

    def _view(self, key: PoolKey, pool: tuple[Pool, Census], now: float) -> GroupView:
        return group_view(*pool, self._breakers.worst_of(key), now)

    def _compare(self, definition: GroupDefinition) -> DefineGroupResult:
        known = self._known.get(definition.name)
        return DefineGroupResult(
            name=definition.name,
            changed=known != definition,
            created=known is None,
            before=known,
            after=definition,
        )

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
