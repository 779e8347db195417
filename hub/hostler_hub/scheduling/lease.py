"""The exclusive right to a slot of a worker, for one attempt of a build."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to one slot of a worker for one attempt of a build."""

    id: str
    build: str
    worker: str
    instance: str
    attempt: int
