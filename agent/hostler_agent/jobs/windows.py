"""Job Objects. Not in this release; this is where they go, with the others' names."""

from __future__ import annotations

from typing import NoReturn

from hostler_agent.jobs.errors import ContainmentUnavailable


def establish(_preference: str, _root_name: str) -> NoReturn:
    """Raises ContainmentUnavailable: a job that cannot be contained is not started at all."""
    raise ContainmentUnavailable("jobs on Windows (Job Objects) are not in this release yet")
