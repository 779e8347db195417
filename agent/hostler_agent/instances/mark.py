"""The mark: whose an instance is. Every driver writes it in the call that creates an instance, and
finds the instance by it. It has two forms: one word in the agent's arguments
(`--mark HUB:INSTANCE:EPOCH:DRIVER`), and fields with a prefix, for labels of containers and tags of
cloud instances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional

OPTION = "--mark"


@dataclass(frozen=True)
class Mark:
    """`hub` and `instance` are ULIDs, `epoch` is 0 where it is not known. `worker` is the worker's
    name, for people: it is empty where the form has no room for it. `driver` tells whose process it
    is on a machine that several drivers use; it is empty in fields, which only one driver reads,
    and in the arguments of agents that earlier hubs started. Neither is compared.
    """

    hub: str
    instance: str
    epoch: int
    worker: str = field(default="", compare=False)
    driver: str = field(default="", compare=False)

    def __str__(self) -> str:
        words = (self.hub, self.instance, str(self.epoch), self.driver)
        return ":".join(words).rstrip(":")

    def arguments(self) -> list[str]:
        """The agent's option that carries the mark."""
        return [OPTION, str(self)]

    def fields(self, prefix: str) -> dict[str, str]:
        """The mark as labels or tags whose names begin with `prefix`."""
        names = Fields(prefix)
        return {
            names.hub: self.hub,
            names.instance: self.instance,
            names.epoch: str(self.epoch),
            names.worker: self.worker,
        }

    @classmethod
    def parse(cls, text: str) -> Optional[Mark]:
        """Read what `str` has written. Returns None for anything else."""
        hub, _, rest = text.partition(":")
        instance, _, rest = rest.partition(":")
        epoch, _, driver = rest.partition(":")
        return cls(hub, instance, int(epoch), driver=driver) if epoch.isdigit() else None

    @classmethod
    def of_arguments(cls, arguments: Sequence[str]) -> Optional[Mark]:
        """Find the mark in a process's arguments. Returns None if there is none."""
        values = [value for name, value in zip(arguments, arguments[1:]) if name == OPTION]
        return cls.parse(values[0]) if values else None

    @classmethod
    def of_fields(cls, prefix: str, fields: Mapping[str, str]) -> Mark:
        """Read what `fields` has written. What is missing is empty, or 0."""
        names = Fields(prefix)
        epoch = fields.get(names.epoch, "")
        return cls(
            fields.get(names.hub, ""),
            fields.get(names.instance, ""),
            int(epoch) if epoch.isdecimal() else 0,
            fields.get(names.worker, ""),
        )


@dataclass(frozen=True)
class Fields:
    """The names of a mark's fields among the labels or tags of a provider."""

    prefix: str

    @property
    def hub(self) -> str:
        return f"{self.prefix}hub"

    @property
    def instance(self) -> str:
        return f"{self.prefix}instance"

    @property
    def epoch(self) -> str:
        return f"{self.prefix}epoch"

    @property
    def worker(self) -> str:
        return f"{self.prefix}worker"
