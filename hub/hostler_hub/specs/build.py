"""A build as its submitter specifies it.

The border (U4): whatever passes is bounded in size and typed strictly, so that "yes" is not a
number and an unknown key is an error. Values that only another part can judge (a driver's options,
whether any worker fits) are judged there.
"""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, Field, StrictInt, model_validator

from hostler_hub.specs.fields import (
    ENTRIES,
    MONTH_S,
    OPTIONS_SIZE_BYTES,
    STRICT,
    STRING_SIZE_BYTES,
    TOTAL_SIZE_BYTES,
    Conditions,
    DriverName,
    Environment,
    Isolations,
    Labels,
    Number,
    PositiveSeconds,
    Properties,
    Text,
    Title,
    WorkerName,
    exec_size_bytes,
    refuse,
)
from hostler_hub.specs.secret_ref import SECRETS, BuildSecret, SecretRefs
from hostler_hub.specs.step import Limits, StepSpec

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
    "WorkerName",
]

STEPS = 256


class _Spec(BaseModel):
    model_config = STRICT


class Requirements(_Spec):
    """What a build requires of its worker. Every condition must hold; without any, every worker
    fits.
    """

    worker: WorkerName | None = None
    driver: DriverName | None = None
    labels: Labels = ()
    properties: Properties = {}
    facts: Conditions = ()
    isolation: Isolations = ()


class Retry(_Spec):
    """How often a build that lost its worker is run again: 2 makes three attempts, 0 one."""

    on_loss: Annotated[StrictInt, Field(ge=0, le=100)] = 2


class BuildSpec(_Spec):
    """A build as it is submitted: its steps in order, its requirements, its deadlines and its
    retries.
    """

    name: Title | None = None
    requires: Requirements = Requirements()
    env: Environment = {}
    secrets: SecretRefs = {}
    limits: Limits | None = None
    properties: Properties = {}
    priority: Annotated[StrictInt, Field(ge=-1_000_000, le=1_000_000)] = 0
    steps: Annotated[tuple[StepSpec, ...], Field(min_length=1, max_length=STEPS)]
    timeout_s: PositiveSeconds | None = None
    retry: Retry = Retry()

    def secrets_of(self, index: int) -> Mapping[str, BuildSecret]:
        """The secrets of a step by variable: its own win over the build's. Only steps with a
        command have any.
        """
        step = self.steps[index]
        return {**self.secrets, **step.secrets} if step.argv else {}

    @model_validator(mode="after")
    def _has_one_value_for_a_variable(self) -> Self:
        for index, step in enumerate(self.steps):
            secrets = self.secrets_of(index)
            if len(secrets) > SECRETS:
                raise refuse("too_many", f"step {index}: more than {SECRETS} secrets")
            for name in sorted(secrets.keys() & (self.env.keys() | step.env.keys())):
                raise refuse("env_name", f"step {index}: {name} is in env and in secrets")
        return self

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
