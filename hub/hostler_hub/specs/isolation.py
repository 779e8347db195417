"""What separates a build from its agent and from other builds, as a worker's agent reports it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

FACT = "isolation"
"""The name of the fact that tells it, also for conditions and for ``default_properties``."""


class Isolation(StrEnum):
    """What separates a build from its agent and from other builds."""

    USER = "user"  # builds can neither read nor signal their agent or their neighbours
    CONTAINER = "container"  # the instance is a container; its builds may reach their agent
    NONE = "none"  # builds run as their agent's own user


def isolation_of(facts: Mapping[str, Any]) -> Isolation | None:
    """The isolation in the facts; None if they do not tell it."""
    told = facts.get(FACT)
    return Isolation(told) if isinstance(told, str) and told in set(Isolation) else None
