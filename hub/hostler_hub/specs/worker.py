"""A worker as its owner defines it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, Discriminator, Field, StrictInt, Tag

from hostler_hub.specs.expectations import Expectations
from hostler_hub.specs.fields import (
    MONTH_S,
    STRICT,
    Addresses,
    DriverName,
    Interval,
    Labels,
    Number,
    Options,
    Password,
    PositiveSeconds,
    Properties,
    Text,
    WorkerName,
)
from hostler_hub.specs.secret_ref import SecretRef


def _kind_of_password(value: object) -> str:
    return "ref" if isinstance(value, (dict, SecretRef)) else "plain"


# Chosen before it is judged, so that a wrong reference is not told that it is no text.
PasswordOrRef = Annotated[
    Annotated[Password, Tag("plain")] | Annotated[SecretRef, Tag("ref")],
    Discriminator(_kind_of_password),
]


class WorkerDefinition(BaseModel):
    """One worker as its owner defines it. Names are Buildbot's where it has them; durations are
    seconds.

    `default_properties` lose against the facts an agent reports, `properties` win over them.
    `build_wait_timeout`: idle time until the instance is stopped; 0 at once, below 0 only when the
    hub stops. `expects` is compared with the machine at each attach, before the first lease.
    `missing_timeout` and `keepalive_interval`: null means the driver's value, and the hub's. One
    instance serves `max_uses` builds and `max_uptime` seconds. `password` is write-only and for
    workers that the hub does not start: the password itself, or a reference to it; null keeps the
    one that is stored.
    """

    model_config = STRICT

    name: WorkerName
    driver: DriverName
    driver_options: Options = {}
    properties: Properties = {}
    default_properties: Properties = {}
    labels: Labels = ()
    priority: Annotated[StrictInt, Field(ge=-1_000_000, le=1_000_000)] = 0
    weight: Annotated[Number, Field(gt=0, le=1_000_000)] = 1
    group: WorkerName | None = None
    max_builds: Annotated[StrictInt, Field(ge=1, le=256)] = 1
    max_uses: Annotated[StrictInt, Field(ge=1, le=1_000_000)] | None = None
    max_uptime: PositiveSeconds | None = None
    build_wait_timeout: Annotated[Number, Field(ge=-MONTH_S, le=MONTH_S)] = 600
    missing_timeout: PositiveSeconds | None = None
    notify_on_missing: Addresses = ()
    keepalive_interval: Interval | None = None
    check_instance_interval: PositiveSeconds = 10
    expects: Expectations | None = None
    password: PasswordOrRef | None = None
    description: Text | None = None

    @property
    def password_ref(self) -> SecretRef | None:
        """The reference to the password, if the definition has one."""
        return self.password if isinstance(self.password, SecretRef) else None

    def public(self) -> dict[str, Any]:
        """The definition as JSON-able data, without the password."""
        ref = self.password_ref
        plain = self.model_dump(mode="json", exclude={"password"})
        return {**plain, "password_ref": ref and ref.model_dump(exclude_none=True)}

    @classmethod
    def stored(cls, public: Mapping[str, Any]) -> Self:
        """The inverse of public(), for a definition that was valid when it was stored."""
        plain = dict(public)
        plain["password"] = plain.pop("password_ref", None)
        return cls.model_validate(plain)
