"""Handles: what a driver stores about an instance between its calls.

The contract passes handles as JSON objects. A driver parses one at the start of a call, and then
works with the fields of its own subclass of `Handle`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from hostler_hub.drivers.errors import HandleRefused


class Handle(BaseModel):
    """Base of every driver's handle. Its fields are enough to find and to end an instance when the
    worker's definition is gone; secrets are stored as references only.

    A subclass whose fields change increments `VERSION`, adds the older number to `UNDERSTOOD`, and
    overrides `upgrade`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    DRIVER: ClassVar[str]
    VERSION: ClassVar[int] = 1
    UNDERSTOOD: ClassVar[frozenset[int]] = frozenset({1})

    def dump(self) -> Mapping[str, Any]:
        """The handle as a JSON object, with its `version`; see `parse`."""
        return {"version": self.VERSION, **self.model_dump(mode="json")}

    @classmethod
    def parse(cls, stored: Mapping[str, Any], instance: str) -> Self:
        """Parse what `dump` returned, in this version or an older one. Raises HandleRefused."""
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
        """Convert the fields of a handle of an older version, which is in `UNDERSTOOD`, to this
        version.
        """
        raise NotImplementedError
