"""What is to be started, in the words that every platform has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

MARK_OPTION = "--mark"
RECORD = "process.json"
LOG = "agent.log"


@dataclass(frozen=True)
class Mark:
    """Whose an instance is; stands in the agent's arguments as HUB:INSTANCE:EPOCH."""

    hub: str
    instance: str
    epoch: int

    def __str__(self) -> str:
        return f"{self.hub}:{self.instance}:{self.epoch}"

    @classmethod
    def parse(cls, text: str) -> Optional[Mark]:
        """What `str` made; None for anything else."""
        hub, _, rest = text.partition(":")
        instance, _, epoch = rest.partition(":")
        return cls(hub, instance, int(epoch)) if epoch.isdigit() else None


@dataclass(frozen=True)
class Start:
    """One agent: its instance's directory has all that it needs. `way` is how, where a platform
    has several; empty is its best.
    """

    mark: Mark
    program: Path
    directory: Path
    environment: Mapping[str, str]
    way: str = ""


@dataclass(frozen=True)
class Ending:
    """How an instance is to go: what held its jobs together, and how long it may take."""

    containment: str
    grace_s: float
