"""What the commands of a build may use, as their submitter says it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, StrictInt

from hostler_hub.specs.fields import STRICT

# A program needs some memory before its own first instruction, and the agent's spawner is in the
# job's cgroup for a moment: less than this would end jobs by chance.
MEMORY_MB = 16
MOST_MEMORY_MB = 2**24


class Limits(BaseModel):
    """For all processes of a command together; null is no limit of one's own.

    ``memory_mb`` in MiB, ``cpu_percent`` of all the worker's processors. An agent that cannot
    enforce one of them does not start the command.
    """

    model_config = STRICT

    memory_mb: Annotated[StrictInt, Field(ge=MEMORY_MB, le=MOST_MEMORY_MB)] | None = None
    processes: Annotated[StrictInt, Field(ge=1, le=1_000_000)] | None = None
    cpu_percent: Annotated[StrictInt, Field(ge=1, le=100)] | None = None

    @property
    def words(self) -> str:
        """The names of those that are set."""
        return ", ".join(name for name, value in self if value is not None)


def effective(build: Limits | None, step: Limits | None) -> Limits | None:
    """The step's own win over the build's; None when nothing is limited."""
    merged: dict[str, int] = {}
    for limits in (build, step):
        merged |= {name: value for name, value in limits or () if value is not None}
    return Limits.model_validate(merged) if merged else None
