"""Knows which instances the provider was never asked for, also after the hub was killed.

Theory of operation. A driver calls `begin` when it is ordered to create an instance, and `note`
just before the request that may make it leaves. `note` writes a file to the disk first, so a
missing file proves that nothing was sent: then the instance does not exist, and nothing has to be
asked of a provider that may not answer. The file may hold the request, for a driver that can repeat
it without making a second instance. Of instances from before the first `begin` in this directory
nothing is known; an earlier version of the hub may have made them.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hostler_hub.drivers.errors import ProviderFailed
from hostler_hub.runtime import private_files
from hostler_hub.runtime.ids import ulid_ms

_SINCE = "since"


class SentRequests:
    """The requests of one driver. Without a directory the knowledge ends with the process."""

    def __init__(self, driver: str, directory: Path | None) -> None:
        self._driver = driver
        self._directory = directory
        self._unsent: set[str] = set()
        self._noted: set[str] = set()
        self._since_ms: int | None = None

    def begin(self, instance: str) -> None:
        """Record that the instance is to be made: nothing was sent yet, unless an earlier call has
        noted it. Raises ProviderFailed.
        """
        if self._directory is not None and self._since() is None:
            with self._failing():
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                private_files.write(self._directory / _SINCE, str(ulid_ms(instance)))
        if instance not in self._noted and not self._has_file(instance):
            self._unsent.add(instance)

    def note(self, instance: str, request: Mapping[str, Any] | None = None) -> None:
        """Record on the disk that a request is about to be sent. Blocks. Raises ProviderFailed, and
        then nothing may be sent.
        """
        if self._directory is not None:
            with self._failing():
                content = "" if request is None else json.dumps(request)
                private_files.write(self._directory / instance, content)
                _sync(self._directory)
        self._noted.add(instance)
        self._unsent.discard(instance)

    def withdraw(self, instance: str) -> None:
        """Record that nothing was made after all: the request was not sent, or was refused."""
        self._remove(instance)
        self._noted.discard(instance)
        self._unsent.add(instance)

    def answered(self, instance: str) -> None:
        """Drop the request's content, which may hold a secret: it was answered."""
        if self._directory is not None:
            with contextlib.suppress(OSError):
                os.truncate(self._directory / instance, 0)

    def forget(self, instance: str) -> None:
        """Drop everything recorded of an instance that is gone."""
        self._remove(instance)
        self._noted.discard(instance)
        self._unsent.discard(instance)

    def never(self, instance: str) -> bool:
        """Whether it is certain that no request for the instance was ever sent."""
        if instance in self._unsent:
            return True
        since = self._since()
        if since is None or ulid_ms(instance) < since or instance in self._noted:
            return False
        return not self._has_file(instance)

    def request(self, instance: str) -> dict[str, Any] | None:
        """The request that was sent for the instance; None if it was answered or is not known."""
        if self._directory is None:
            return None
        return private_files.read_json(self._directory / instance) or None

    def _since(self) -> int | None:
        if self._since_ms is None and self._directory is not None:
            with contextlib.suppress(OSError, ValueError):
                self._since_ms = int((self._directory / _SINCE).read_text())
        return self._since_ms

    def _has_file(self, instance: str) -> bool:
        return self._directory is not None and (self._directory / instance).exists()

    def _remove(self, instance: str) -> None:
        if self._directory is not None:
            with contextlib.suppress(OSError):
                (self._directory / instance).unlink()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            text = f"{self._driver}: cannot write to {self._directory}: {error.strerror}"
            raise ProviderFailed(f"{text}; nothing was started") from error


def _sync(directory: Path) -> None:
    """Write the directory's entries to the disk. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
