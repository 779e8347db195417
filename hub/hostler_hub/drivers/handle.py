"""Handles: what a driver keeps of an instance, in the store between its calls.

The contract carries handles as JSON objects; a driver reads one once, as it comes in, and from
there on has the fields of its own subclass of `Handle`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from hostler_hub.drivers.errors import HandleRefused


class Handle(BaseModel):
    """Base of every driver's handle. Its fields are what it takes to find and to end an instance
    when the worker's definition is gone; secrets are kept as references only.

    A subclass whose fields change counts `VERSION` up, adds the older number to `UNDERSTOOD`, and
    overrides `upgrade`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    DRIVER: ClassVar[str]
    VERSION: ClassVar[int] = 1
    UNDERSTOOD: ClassVar[frozenset[int]] = frozenset({1})

    def dump(self) -> Mapping[str, Any]:
        """The handle as a JSON object, with its `version`."""
        return {"version": self.VERSION, **self.model_dump(mode="json")}

    @classmethod
    def parse(cls, stored: Mapping[str, Any], instance: str) -> Self:
        """Read what `dump` has written, now or in an older version. Raises HandleRefused."""
        version = stored.get("version")
        if version not in cls.UNDERSTOOD:
            raise HandleRefused.of_version(cls.DRIVER, instance, version, cls.UNDERSTOOD)
        fields = stored if version == cls.VERSION else cls.upgrade(stored)
        try:
            return cls.model_validate({**fields})
        except ValidationError as error:
            text = f"{cls.DRIVER}: the handle of instance {instance} cannot be read: {error}"
            raise HandleRefused(text) from error

    @classmethod
    def upgrade(cls, stored: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fields of a handle of an older version that is in `UNDERSTOOD`."""
        raise NotImplementedError
