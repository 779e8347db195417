"""The registry: every defined worker, as the hub holds it in memory.

A worker's row in the store is authoritative. Its entry here is a copy of the row, plus what lives
only as long as this process: connection, timers, the one-time token between intent and create.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from hostler_hub.errors import NotFound
from hostler_hub.lifecycle.model import Timer, Worker
from hostler_hub.specs.expectations import MachineCheck
from hostler_hub.specs.isolation import FACT
from hostler_hub.specs.worker import WorkerDefinition


class TimerHandle(Protocol):
    """A pending callback of a clock, which can be cancelled."""

    def cancel(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Origin:
    """The driver and the options that the living instance was started with.

    The worker's definition may have changed since.
    """

    driver: str
    options: Mapping[str, Any]


@dataclass(slots=True)
class Entry:
    """One worker: definition, life, facts, and its locks.

    ``lock`` is held while an event is handled, ``driver_lock`` during a driver call. ``revision``
    is that of the worker's row. ``token`` is an instance's one-time token until its create.
    """

    definition: WorkerDefinition
    life: Worker
    revision: int
    password_hash: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    started: Origin | None = None
    token: str | None = field(default=None, repr=False)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    driver_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    timers: dict[Timer, TimerHandle] = field(default_factory=dict)
    incidents: dict[str, str] = field(default_factory=dict)  # ids of the open ones, by kind
    exam: MachineCheck | None = None  # the last check of its machine; made anew at each attach

    @property
    def origin(self) -> Origin:
        """The driver and the options to find the instance with.

        Those it was started with, or the definition's, which the next one is started with.
        """
        return self.started or Origin(self.definition.driver, self.definition.driver_options)

    @property
    def has_password(self) -> bool:
        """Whether the hub has a hash of the worker's password, or a reference to the password."""
        return self.definition.password_ref is not None or self.password_hash is not None

    @property
    def properties(self) -> dict[str, Any]:
        """The properties that builds are matched against, by name.

        The machine's facts override the definition's ``default_properties``; the definition's
        ``properties`` override both, but for the isolation: what the agent gives is no matter of
        opinion.
        """
        definition = self.definition
        found = {**definition.default_properties, **self.facts, **definition.properties}
        if FACT in self.facts:
            found[FACT] = self.facts[FACT]
        return found


class Registry:
    """The entries of all defined workers, by name."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def find(self, name: str) -> Entry | None:
        return self._entries.get(name)

    def get(self, name: str) -> Entry:
        """The entry of the worker. Raises NotFound with the name if there is none."""
        entry = self._entries.get(name)
        if entry is None:
            raise NotFound(f"there is no worker {name}")
        return entry

    def add(self, entry: Entry) -> None:
        self._entries[entry.life.name] = entry

    def discard(self, name: str) -> None:
        self._entries.pop(name, None)
