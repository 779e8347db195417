"""The contract of drivers: code that starts, inspects, stops and lists instances of one kind.

Theory of operation. The controller commits an intent (instance, epoch, hash of the token) and then
calls ``create``; from there on ``(hub, instance, epoch)`` is the *mark* by which everything the
call made can be found again, also when its answer was lost. A driver keeps nothing in memory that
it could not find at the provider: after a restart it gets the stored handle back, or None.

The controller calls at most one of create, inspect and destroy at a time per instance, each under
a deadline of its own; a call that is cancelled may have happened. Drivers are found by the entry
point group ``hostler.drivers`` and see neither the store nor the web.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from pydantic import BaseModel, ConfigDict

from hostler_agent.instances.mark import Mark
from hostler_hub.lifecycle.model import Presence
from hostler_hub.runtime.secrets import NO_SECRETS, Secrets


class DriverOptions(BaseModel):
    """Base of every driver's options: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @property
    def place(self) -> str:
        """Where instances live: a host, a daemon, a region; empty for this machine.

        While it stays the same, a living instance is handled with the definition's present options
        (say, a corrected user name), else with those it was started with.
        """
        return ""

    @property
    def failure_domains(self) -> Sequence[str]:
        """What a start shares with other workers' starts and can fail for all of them, the
        narrowest first: an image on a daemon, then the daemon. Each is a noun for people, and the
        same text wherever it is the same thing. Empty if only the driver as a whole is shared.
        """
        return ()

    @classmethod
    def in_force(
        cls, present: Mapping[str, Any] | None, started: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """The options with which the hub handles a living instance: `present` or `started`; see
        ``place``.

        ``present`` are the options of the worker's current definition, or None if it has none;
        ``started`` are those with which the instance was started.
        """
        if present is None or present == started:
            return started
        same_place = cls.of(present).place == cls.of(started).place
        return present if same_place else started

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Read options as they are stored. Raises ValidationError."""
        return cls.model_validate(dict(options))

    @property
    def recipe(self) -> str:
        """A digest of the options that determine how a machine is made, if it may be kept as a
        spare.

        Empty if no spare is to be kept: then an instance is destroyed at its end (see ``Keeper``).
        """
        return ""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Properties of a driver that the lifecycle needs to know. Times are in seconds."""

    permanent: bool = False  # the owner starts the machine; create is never called
    on_hub: bool = False  # its agents run on the hub's machine, as the hub's own user
    missing_timeout_s: float = 120.0  # how long its instances may take to attach, by default
    create_deadline_s: float = 60.0
    inspect_deadline_s: float = 10.0
    destroy_deadline_s: float = 60.0


@dataclass(frozen=True, slots=True)
class AgentArchive:
    """The agent as one file, which any Python from 3.9 on runs. A driver pushes it to a machine
    that has no archive of this digest.
    """

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Environment:
    """What a hub passes to a driver's constructor."""

    hub: str  # ULID of this hub; part of every mark
    directory: Path
    connect_url: str  # where agents attach, ws:// or wss://
    archive: AgentArchive | None = None  # for drivers whose machines are elsewhere
    secrets: Secrets = NO_SECRETS  # resolves the secrets that options name
    hub_socket: Path | None = None  # a Unix socket of the hub, for agents that can open it
    ca_file: Path | None = None  # PEM: trusted for wss:// by agents, instead of the system's
    allowed_privileges: frozenset[str] = frozenset()  # beyond the safe; allowed by the hub's owner
    config_directory: Path | None = None  # the hub owner's files for this driver (known_hosts ...)


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """The instance to start. ``token`` is its one-time secret, which is kept out of repr().

    ``agent_config`` are the keys of the agent's configuration that the worker's definition sets:
    who its builds run as.
    """

    worker: str
    instance: str
    epoch: int
    token: str = field(repr=False)
    options: Mapping[str, Any]
    agent_config: Mapping[str, Any] = field(default_factory=dict)

    def mark(self, hub: str) -> Mark:
        """The mark that the instance carries at its provider."""
        return Mark(hub, self.instance, self.epoch, self.worker)


@dataclass(frozen=True, slots=True)
class InstanceRef:
    """The instance that a call is about. ``handle`` is None if the answer of create was lost."""

    worker: str
    instance: str
    epoch: int
    handle: Mapping[str, Any] | None
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Inspection:
    """The result of ``Driver.inspect``. ``evidence`` is text for people (exit code, last log
    lines).
    """

    presence: Presence
    evidence: str = ""
    handle: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Owned:
    """An object at the provider that carries this hub's mark.

    ``handle`` alone is enough to destroy it, also when the worker's definition is gone; ``name`` is
    the provider's name of it, for people; ``created_at`` is in seconds since the epoch. For a
    *spare* (the stopped machine that an instance left for the next one), ``spare`` is its recipe;
    otherwise it is empty.
    """

    instance: str
    epoch: int
    handle: Mapping[str, Any]
    worker: str = ""
    name: str = ""
    created_at: float | None = None
    spare: str = ""


class Driver(Protocol):
    """The interface of a driver; ``tests/conformance/drivers.py`` tests every driver against it."""

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    options_model: ClassVar[type[DriverOptions]]

    def __init__(self, environment: Environment) -> None: ...

    async def create(self, spec: InstanceSpec) -> Mapping[str, Any]:
        """Start the instance and return its handle: a JSON object (see ``handle.Handle``).

        Called by the controller once per instance; called again with the same instance it returns
        the handle of the one that exists. The mark is set in the call that creates. Raises
        OptionsRefused or ProviderFailed; the instance may exist all the same.
        """

    async def inspect(self, ref: InstanceRef) -> Inspection:
        """Find out whether the instance exists. Called at every check interval and after a lost
        agent.

        The result is UNKNOWN if the provider does not tell, and GONE only on positive evidence.
        Raises DriverError, which counts as UNKNOWN.
        """

    async def destroy(self, ref: InstanceRef) -> None:
        """Stop the instance and everything it started; return when it is proven gone.

        Idempotent. Called until it succeeds, also for instances that never existed. Raises
        ProviderFailed if the instance still exists or may exist.
        """

    async def list_owned(self, places: Sequence[Mapping[str, Any]]) -> Sequence[Owned]:
        """List every object at the provider that carries this hub's mark. Called by reconcile.

        ``places`` are the options of every worker and every living instance of this driver. They
        say at which hosts, daemons or regions to look; each place is asked once, however many
        options name it. Raises ProviderFailed if a place did not answer: the list would be
        incomplete, and an instance missing from it would be taken for gone.
        """

    async def aclose(self) -> None:
        """Close the driver's clients. Called when the hub stops; instances keep running."""


@runtime_checkable
class Witness(Protocol):
    """Optional interface: a driver that can report what happened to an instance before it is
    destroyed.
    """

    async def evidence(self, ref: InstanceRef) -> Mapping[str, str]:
        """Return texts by name (``console``, ``agent log``, ``processes`` ...), at most 64 KiB
        each.

        Called after a failed start and after a loss, before destroy. A text that cannot be had is
        left out. Raises only DriverError.
        """


@runtime_checkable
class Keeper(Protocol):
    """Optional interface: a driver that can keep an instance's machine for the worker's next
    instance.

    The machine that is kept is a *spare*: it is stopped, costs little, and carries the instance's
    mark and its recipe. ``create`` starts a spare again if its recipe is that of the current
    options. Reconcile destroys spares that no worker would use any more, and all but one spare of
    each worker.
    """

    async def keep(self, ref: InstanceRef) -> bool:
        """End the instance. Returns whether its machine was kept; both outcomes are as proven as by
        ``destroy``.

        Called instead of ``destroy``, once, for an instance that ends in good order and whose
        options have a recipe. If it raises or never returns, ``destroy`` is called. Raises
        DriverError.
        """
