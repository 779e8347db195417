"""Worker definitions: validated, compared with the stored ones, and stored all or none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from pydantic import SecretStr
from sqlalchemy import Connection

from hostler_hub.drivers import registry as driver_registry
from hostler_hub.drivers.contract import Driver
from hostler_hub.drivers.errors import OptionsRefused
from hostler_hub.errors import Conflict, InvalidRequest
from hostler_hub.lifecycle import State, Worker, events
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.errors import SecretRefused
from hostler_hub.runtime.passwords import hash_password
from hostler_hub.runtime.secrets import Secrets
from hostler_hub.specs.worker import BUILD_USERS, WorkerDefinition
from hostler_hub.store import workers
from hostler_hub.store.engine import Store
from hostler_hub.workers.controller import Controller
from hostler_hub.workers.order_views import DefineResult
from hostler_hub.workers.registry import Entry, Registry
from hostler_hub.workers.rows import columns_of
from hostler_hub.workers.views import definition_view

_log = structlog.get_logger(__name__)

# The fields that an instance is started with: a change of these needs a new instance.
_OF_THE_INSTANCE = ("driver", "driver_options", *BUILD_USERS)

# Groups that every inventory has.
_OF_ANSIBLE = frozenset({"all", "ungrouped"})


class Definitions:
    """Creates and changes workers.

    ``on_defined`` is called once definitions are stored: builds that waited may now fit a worker.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        registry: Registry,
        controller: Controller,
        drivers: Mapping[str, Driver],
        secrets: Secrets,
        on_defined: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._registry = registry
        self._controller = controller
        self._drivers = drivers
        self._secrets = secrets
        self._on_defined = on_defined
        self._defining = asyncio.Lock()

    async def define(
        self, definitions: Sequence[WorkerDefinition], *, dry_run: bool, by: str
    ) -> list[DefineResult]:
        """Create or change workers, all or none; equal definitions are left alone.

        Raises InvalidRequest, and Conflict for a worker that is being removed, or that has an
        instance of another driver.
        """
        self._check(definitions)
        async with self._defining:  # two plays at once: the second sees what the first did
            results = [self._compare(definition) for definition in definitions]
            if not dry_run:
                changed = {result.name for result in results if result.changed}
                todo = [
                    _keeping_password(each, self._registry.find(each.name))
                    for each in definitions
                    if each.name in changed
                ]
                await self._store_definitions(todo)
                _log.info("workers defined", by=by, count=len(todo))
        return results

    def _check(self, definitions: Sequence[WorkerDefinition]) -> None:
        seen: set[str] = set()
        for index, definition in enumerate(definitions):
            where = f"/workers/{index}"
            if definition.name in seen:
                raise InvalidRequest(
                    f"worker {definition.name} is defined twice", pointer=f"{where}/name"
                )
            seen.add(definition.name)
            if definition.name in _OF_ANSIBLE and self._registry.find(definition.name) is None:
                raise InvalidRequest(
                    f"worker {definition.name}: a group of Ansible's own has this name, so that "
                    "no inventory can hold it as a host; choose another",
                    pointer=f"{where}/name",
                )
            driver = self._drivers.get(definition.driver)
            if driver is None:
                known = ", ".join(sorted(self._drivers))
                raise InvalidRequest(
                    f"worker {definition.name}: there is no driver {definition.driver} "
                    f"(installed: {known})",
                    pointer=f"{where}/driver",
                )
            try:
                driver_registry.check_options(type(driver), definition.driver_options)
            except OptionsRefused as error:
                raise InvalidRequest(
                    f"worker {definition.name}: {error}", pointer=f"{where}/driver_options"
                ) from error
            _check_permanence(definition, driver, where)
            self._check_password(definition, where)
            self._check_state(definition, where)

    def _check_password(self, definition: WorkerDefinition, where: str) -> None:
        """Refuse a reference to a password that cannot be read.

        Else its owner would learn that only when an agent is refused. Raises InvalidRequest.
        """
        if definition.password_ref is None:
            return
        try:
            self._secrets.resolve(definition.password_ref)
        except SecretRefused as error:
            raise InvalidRequest(
                f"worker {definition.name}: password: {error}", pointer=f"{where}/password"
            ) from None

    def _check_state(self, definition: WorkerDefinition, where: str) -> None:
        entry = self._registry.find(definition.name)
        if entry is not None and entry.life.removing:
            raise Conflict(
                f"worker {definition.name} is being removed; try again when it is gone",
                pointer=f"{where}/name",
            )
        if (
            entry is not None
            and entry.life.state is not State.LATENT
            and entry.definition.driver != definition.driver
        ):
            raise Conflict(
                f"worker {definition.name} has an instance of driver {entry.definition.driver}; "
                "stop it before it gets another driver",
                pointer=f"{where}/driver",
            )

    def _compare(self, definition: WorkerDefinition) -> DefineResult:
        entry = self._registry.find(definition.name)
        definition = _keeping_password(definition, entry)
        plain = definition.password is not None and definition.password_ref is None
        has_password = definition.password is not None or (
            entry is not None and entry.password_hash is not None
        )
        after = definition_view(definition, has_password=has_password)
        before = None
        if entry is not None:
            before = definition_view(entry.definition, has_password=entry.has_password)
        return DefineResult(
            name=definition.name,
            changed=before != after or plain,
            created=entry is None,
            before=before,
            after=after,
        )

    async def _store_definitions(self, definitions: Sequence[WorkerDefinition]) -> None:
        if not definitions:
            return
        hashes = await asyncio.to_thread(_hash_passwords, definitions)
        fresh = [each for each in definitions if each.name not in self._registry]
        known = [each for each in definitions if each.name in self._registry]
        at = self._clock.now()
        entries = {
            each.name: Entry(
                each,
                Worker(each.name, self._controller.policy(each), state_since=at),
                revision=1,
                password_hash=hashes.get(each.name),
            )
            for each in fresh
        }

        def write(c: Connection) -> dict[str, int]:
            epochs = {name: workers.last_epoch(c, name) for name in entries}
            for name, entry in entries.items():
                workers.insert(c, _row(entry, epochs[name]))
            for each in known:
                workers.redefine(c, each.name, each.public(), hashes.get(each.name))
            return epochs

        changes = [(each.name, self._redefined(each, at)) for each in known]
        if not changes:
            epochs = await self._store.write(write)
        else:
            held: dict[str, int] = {}
            await self._controller.handle_many(changes, lambda c: held.update(write(c)))
            epochs = held
        for name, entry in entries.items():
            entry.life = _with_epoch(entry.life, epochs[name])
            self._registry.add(entry)
        for each in known:
            entry = self._registry.get(each.name)
            entry.definition = each
            entry.password_hash = hashes.get(each.name, entry.password_hash)
        await self._arm(fresh, at)

    async def _arm(self, fresh: Sequence[WorkerDefinition], at: float) -> None:
        """Expect the agents of new permanent workers from now on, as from a hub's start.

        Then call ``on_defined``.
        """
        expected = [
            (each.name, events.Recovered(at=at))
            for each in fresh
            if self._registry.get(each.name).life.policy.permanent
        ]
        if expected:
            await self._controller.handle_many(expected)
        self._on_defined()

    def _redefined(self, definition: WorkerDefinition, at: float) -> events.Event:
        entry = self._registry.get(definition.name)
        restart = any(
            getattr(entry.definition, field) != getattr(definition, field)
            for field in _OF_THE_INSTANCE
        )
        policy = self._controller.policy(definition)
        return events.Redefined(at=at, policy=policy, restart=restart)


def _check_permanence(definition: WorkerDefinition, driver: Driver, where: str) -> None:
    """Refuse fields about the hub's instances and their agents for those that owners start.

    Raises InvalidRequest.
    """
    if not driver.capabilities.permanent:
        return
    for field in definition.agent_config:
        raise InvalidRequest(
            f"worker {definition.name}: the agent of driver {definition.driver} is configured by "
            f"its owner: set {field} in the agent's own configuration",
            pointer=f"{where}/{field}",
        )
    for field in ("max_uses", "max_uptime"):
        if getattr(definition, field) is not None:
            raise InvalidRequest(
                f"worker {definition.name}: {field} is about instances that the hub replaces; "
                f"those of driver {definition.driver} are their owner's",
                pointer=f"{where}/{field}",
            )


def _keeping_password(definition: WorkerDefinition, entry: Entry | None) -> WorkerDefinition:
    """The definition, with the stored reference to a password if it names no password.

    A stored password that is a hash stays in its own column.
    """
    if definition.password is not None or entry is None:
        return definition
    return definition.model_copy(update={"password": entry.definition.password_ref})


def _hash_passwords(definitions: Sequence[WorkerDefinition]) -> dict[str, str]:
    return {
        each.name: hash_password(each.password.get_secret_value())
        for each in definitions
        if isinstance(each.password, SecretStr)
    }


def _row(entry: Entry, epoch: int) -> dict[str, Any]:
    return {
        "name": entry.life.name,
        "definition": entry.definition.public(),
        "password_hash": entry.password_hash,
        "facts": {},
        "revision": entry.revision,
        **columns_of(_with_epoch(entry.life, epoch)),
    }


def _with_epoch(life: Worker, epoch: int) -> Worker:
    """V4: the life of a new worker, whose epochs go on from the last one of its name."""
    return Worker(life.name, life.policy, state_since=life.state_since, epoch=epoch)
