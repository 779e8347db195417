"""A worker as its owner defines it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    StrictBool,
    StrictInt,
    Tag,
    model_validator,
)

from hostler_hub.specs.expectations import Expectations
from hostler_hub.specs.fields import (
    MONTH_S,
    STRICT,
    Addresses,
    DriverName,
    GroupNames,
    Interval,
    Labels,
    Number,
    Options,
    Password,
    PositiveSeconds,
    Properties,
    Text,
    WorkerName,
    refuse,
)
from hostler_hub.specs.secret_ref import SecretRef


def _kind_of_password(value: object) -> str:
    return "ref" if isinstance(value, (dict, SecretRef)) else "plain"


# Chosen before it is judged, so that a wrong reference is not told that it is no text.
PasswordOrRef = Annotated[
    Annotated[Password, Tag("plain")] | Annotated[SecretRef, Tag("ref")],
    Discriminator(_kind_of_password),
]


# The fields that say who builds run as; they are keys of the agent's configuration too.
BUILD_USERS = ("run_as", "build_groups", "no_new_privileges")


class PublicDefinition(BaseModel):
    """What a worker's owner defines and everybody may see; durations are in seconds.

    The names are Buildbot's own where it has them.
    """

    model_config = STRICT

    name: WorkerName = Field(description="The worker's name.")
    driver: DriverName = Field(description="What starts its instances.")
    driver_options: Options = Field({}, description="What the driver starts its instances with.")
    properties: Properties = Field(
        {}, description="Facts that builds can require; they win over those its agent reports."
    )
    default_properties: Properties = Field(
        {}, description="The same, but those that its agent reports win."
    )
    labels: Labels = Field((), description="Words that builds can require.")
    priority: Annotated[StrictInt, Field(ge=-1_000_000, le=1_000_000)] = Field(
        0, description="Of several workers that fit a build, one of the highest is taken."
    )
    weight: Annotated[Number, Field(gt=0, le=1_000_000)] = Field(
        1, description="Its share of the builds among workers of its priority."
    )
    group: WorkerName | None = Field(None, description="The group that it is of.")
    max_builds: Annotated[StrictInt, Field(ge=1, le=256)] = Field(
        1, description="How many builds it runs at once."
    )
    max_uses: Annotated[StrictInt, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="How many builds one instance is good for."
    )
    max_uptime: PositiveSeconds | None = Field(
        None, description="For how many seconds one instance gets new builds."
    )
    build_wait_timeout: Annotated[Number, Field(ge=-MONTH_S, le=MONTH_S)] = Field(
        600,
        description="Seconds without a build until its instance is stopped; 0 at once, below 0 "
        "only when the hub stops.",
    )
    missing_timeout: PositiveSeconds | None = Field(
        None,
        description="Seconds until an instance whose agent does not attach is given up; null is "
        "the driver's.",
    )
    notify_on_missing: Addresses = Field(
        (), description="Mail addresses that are told of its incidents."
    )
    keepalive_interval: Interval | None = Field(
        None, description="Seconds between two pings of its agent; null is the hub's."
    )
    check_instance_interval: PositiveSeconds = Field(
        10, description="Seconds between two looks of the driver at its instance."
    )
    expects: Expectations | None = Field(
        None,
        description="What is compared with its machine at each attach, before the first lease.",
    )
    run_as: Literal["build_user", "agent"] = Field(
        "build_user",
        description="Who its builds run as: a user of their own where its agent has the rights, or "
        "the agent's own.",
    )
    build_groups: GroupNames = Field(
        (), description="Groups on its machine that the users of its builds are members of."
    )
    no_new_privileges: StrictBool = Field(
        False, description="Whether its builds can gain no privileges, as by sudo."
    )
    description: Text | None = Field(None, description="What it is for, for people.")

    @model_validator(mode="after")
    def _groups_have_users(self) -> Self:
        if self.build_groups and self.run_as == "agent":
            raise refuse("build_groups", "build_groups needs run_as: build_user")
        return self

    @property
    def agent_config(self) -> dict[str, Any]:
        """The keys of the agent's configuration that the definition sets.

        Defaults are left out: an older agent refuses to start with keys that it does not know.
        """
        return self.model_dump(mode="json", include=set(BUILD_USERS), exclude_defaults=True)


class WorkerDefinition(PublicDefinition):
    """One worker as its owner defines it; a definition of the fleet's inventory.

    `password` is write-only and belongs to workers that run without the hub's doing: itself, or
    where the hub finds it; null keeps the one that is stored. The other fields are those of
    `PublicDefinition`.
    """

    password: PasswordOrRef | None = None

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
