"""What people hand to the hub: worker definitions and build specifications.

The border of faults 3.2: whatever passes here is bounded in size and typed strictly, so that
"yes" is no number and an unknown key is an error, not a silence. Values that only another part can
judge (a driver's options, whether any worker fits) are judged there.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, Discriminator, Field, StrictInt, Tag, model_validator

from hostler_hub.limits import Limits
from hostler_hub.specs.expectations import Expectations
from hostler_hub.specs.fields import (
    ENTRIES,
    MONTH_S,
    OPTIONS_SIZE_BYTES,
    STRICT,
    STRING_SIZE_BYTES,
    TOTAL_SIZE_BYTES,
    Addresses,
    Conditions,
    DriverName,
    Environment,
    Interval,
    Labels,
    Number,
    Options,
    Password,
    PositiveSeconds,
    Properties,
    Text,
    Title,
    WorkerName,
    exec_size_bytes,
    refuse,
)
from hostler_hub.specs.secret_ref import SecretRef
from hostler_hub.specs.step import StepSpec

__all__ = [
    "ENTRIES",
    "MONTH_S",
    "OPTIONS_SIZE_BYTES",
    "STEPS",
    "STRING_SIZE_BYTES",
    "TOTAL_SIZE_BYTES",
    "BuildSpec",
    "Number",
    "Requirements",
    "Retry",
    "StepSpec",
    "Text",
    "WorkerDefinition",
    "WorkerName",
]

STEPS = 256


class _Spec(BaseModel):
    model_config = STRICT


def _kind_of_password(value: object) -> str:
    return "ref" if isinstance(value, (dict, SecretRef)) else "plain"


# Chosen before it is judged, so that a wrong reference is not told that it is no text.
PasswordOrRef = Annotated[
    Annotated[Password, Tag("plain")] | Annotated[SecretRef, Tag("ref")],
    Discriminator(_kind_of_password),
]


class WorkerDefinition(_Spec):
    """One worker as its owner defines it. Buildbot's own names where it has them, in seconds.

    `default_properties` lose against the facts an agent reports, `properties` win over them.
    `build_wait_timeout`: idle time until the instance is stopped; 0 at once, below 0 only when the
    hub stops. `expects` is compared with the machine at each attach, before the first lease.
    `missing_timeout` and `keepalive_interval`: null is the driver's, and the hub's.
    `max_uses` builds and `max_uptime` seconds are what one instance is good for. `password` is
    write-only and belongs to workers that run without the hub's doing: itself, or where the hub
    finds it; null keeps the one that is stored.
    """

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
        """Where the password is found, if the definition says so."""
        return self.password if isinstance(self.password, SecretRef) else None

    def public(self) -> dict[str, Any]:
        """The definition as JSON-able data, without the password."""
        ref = self.password_ref
        plain = self.model_dump(mode="json", exclude={"password"})
        return {**plain, "password_ref": ref and ref.model_dump(exclude_none=True)}

    @classmethod
    def stored(cls, public: Mapping[str, Any]) -> Self:
        """The inverse of public(), for what was valid when it was stored."""
        plain = dict(public)
        plain["password"] = plain.pop("password_ref", None)
        return cls.model_validate(plain)


class Requirements(_Spec):
    """What a build asks of its worker; every condition must hold, none means any worker."""

    worker: WorkerName | None = None
    driver: DriverName | None = None
    labels: Labels = ()
    properties: Properties = {}
    facts: Conditions = ()


class Retry(_Spec):
    """How often a build that lost its worker is run again: twice makes three attempts; 0 never."""

    on_loss: Annotated[StrictInt, Field(ge=0, le=100)] = 2


class BuildSpec(_Spec):
    """A build as it is submitted: steps in order, what it requires, and how patient it is."""

    name: Title | None = None
    requires: Requirements = Requirements()
    env: Environment = {}
    limits: Limits | None = None
    properties: Properties = {}
    priority: Annotated[StrictInt, Field(ge=-1_000_000, le=1_000_000)] = 0
    steps: Annotated[tuple[StepSpec, ...], Field(min_length=1, max_length=STEPS)]
    timeout_s: PositiveSeconds | None = None
    retry: Retry = Retry()

    @model_validator(mode="after")
    def _fits_one_exec(self) -> Self:
        for index, step in enumerate(self.steps):
            if not step.argv:
                continue
            env = {**self.env, **step.env}
            if len(env) > ENTRIES:
                raise refuse("too_many", f"step {index}: more than {ENTRIES} variables (E13)")
            if exec_size_bytes(step.argv, env) > TOTAL_SIZE_BYTES:
                raise refuse(
                    "too_large",
                    f"step {index}: arguments and environment together are larger than "
                    f"{TOTAL_SIZE_BYTES} bytes (E13)",
                )
        return self
