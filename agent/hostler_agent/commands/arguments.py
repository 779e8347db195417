"""Checks a command's arguments. A wrong one is refused with one clear sentence."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Optional

from hostler_agent.commands.errors import BadArguments


class Arguments:
    """A command's arguments. Each method raises BadArguments if its argument is missing or of the
    wrong type.
    """

    def __init__(self, command: str, values: Mapping[str, Any], workdir: str) -> None:
        self._command = command
        self._values = values
        self._workdir = workdir
        self.paths_taken: list[str] = []
        """The paths that were taken from the arguments so far."""

    def text(self, name: str) -> str:
        value = self._required(name, "a string")
        if not isinstance(value, str):
            raise self.wrong(name, "a string", value)
        return value

    def path(self, name: str) -> str:
        """An absolute path. A relative path in the argument starts at the agent's base
        directory.
        """
        return self._path(name, self._required(name, "a path"))

    def paths(self, name: str) -> list[str]:
        values = self._required(name, "a list of paths")
        if not isinstance(values, (list, tuple)) or not values:
            raise self.wrong(name, "a list of paths", values)
        return [self._path(name, value) for value in values]

    def flag(self, name: str, default: bool) -> bool:
        value = self._values.get(name)
        if value is None:
            return default
        # Buildbot sends some of its flags as 0 and 1.
        if not isinstance(value, int):
            raise self.wrong(name, "true or false", value)
        return bool(value)

    def whole(self, name: str, default: Optional[int] = None) -> Optional[int]:
        """An integer of at least 0."""
        value = self._values.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.wrong(name, "a whole number that is not negative", value)
        return value

    def seconds(self, name: str, default: Optional[float] = None) -> Optional[float]:
        value = self._values.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
            raise self.wrong(name, "a number of seconds", value)
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        value = self._values.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise self.wrong(name, "a map", value)
        return value

    def get(self, name: str) -> Any:
        """The argument as it was received; None if it is missing."""
        return self._values.get(name)

    def wrong(self, name: str, wanted: str, value: Any) -> BadArguments:
        # Never the value itself, which may be a secret (V14).
        kind = "null" if value is None else type(value).__name__
        return BadArguments(f"{self._command}: argument {name!r} must be {wanted}, not {kind}")

    def _required(self, name: str, wanted: str) -> Any:
        if name not in self._values:
            raise BadArguments(f"{self._command}: argument {name!r} is missing; it is {wanted}")
        return self._values[name]

    def _path(self, name: str, value: Any) -> str:
        if not isinstance(value, str) or not value or "\0" in value:
            raise self.wrong(name, "a path", value)
        path = os.path.join(self._workdir, value)  # noqa: PTH118 - Path would drop a last slash
        self.paths_taken.append(path)
        return path
