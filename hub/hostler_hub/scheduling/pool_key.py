"""The key of a pool: the set of workers that share the limits on starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from hostler_hub.workers.registry import Entry

_DRIVER = "driver "


@dataclass(frozen=True, slots=True, order=True)
class PoolKey:
    """A group, or (``is_group`` false) the workers of one driver that belong to no group.

    A group and a driver may have the same name and are still two pools.
    """

    name: str
    is_group: bool = True

    @classmethod
    def of(cls, group: str | None, driver: str) -> Self:
        """The pool of a worker with this group (None: no group) and this driver."""
        return cls(driver, is_group=False) if group is None else cls(group)

    @property
    def label(self) -> str:
        """The text in the column ``group`` of decisions: the group's name, or "driver NAME"."""
        return self.name if self.is_group else f"{_DRIVER}{self.name}"

    @property
    def title(self) -> str:
        """The pool in a sentence for people: "group NAME" or "driver NAME"."""
        return f"group {self.name}" if self.is_group else self.label


def pool_of(entry: Entry) -> PoolKey:
    """The pool in which the worker's starts, losses and idle instances are counted."""
    return PoolKey.of(entry.definition.group, entry.definition.driver)
