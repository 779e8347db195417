"""Files that hold the secrets of a command while it runs, and not longer.

They are in memory where the machine has a directory for that, else in the agent's own directory;
never in a build's workspace. The directory's name follows from the agent's own directory, so the
agent's next process, and whoever removes the instance, finds what a killed agent has left.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Optional

from hostler_agent import machine, private_files
from hostler_agent.commands import removal
from hostler_agent.commands.progress import Progress

Owner = tuple[int, int]
"""The user id and group id of the files' reader."""

log = logging.getLogger(__name__)


class SecretFiles:
    """The secret files of one command: `paths` by name."""

    def __init__(
        self, workdir: Path, values: Mapping[str, bytes], owner: Optional[Owner] = None
    ) -> None:
        """Write the files, which only `owner` (by default the agent's user) may read. Raises
        OSError.
        """
        # Nobody can list the directories above, and nobody can guess this name.
        self._directory = _agents_directory(workdir, owner) / secrets.token_hex(16)
        self.paths = {name: str(self._directory / name) for name in values}
        try:
            self._directory.mkdir(mode=0o700)
            for name, value in values.items():
                _write(self._directory / name, value, owner)
            if owner is not None:
                self._directory.chmod(0o711)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Remove the files. Raises OSError if one cannot be removed."""
        for failure in removal.remove(str(self._directory), Progress()):
            raise failure


def sweep(workdir: Path) -> None:
    """Remove all secret files of the agent of this directory. A failure is logged."""
    for place in _places(workdir):
        if machine.is_own_directory(place):
            for failure in removal.remove(str(place), Progress()):
                log.warning("a secret file stays: %s", failure)


def _places(workdir: Path, *, common: bool = True) -> Iterator[Path]:
    """The directories that may hold the agent's secret files; the preferred one first. See
    machine.memory_directories.
    """
    name = hashlib.sha256(os.fsencode(workdir.resolve())).hexdigest()[:32]
    yield from (
        place / f"hostler-secrets-{name}" for place in machine.memory_directories(common=common)
    )
    yield workdir / ".secrets"


def _agents_directory(workdir: Path, owner: Optional[Owner]) -> Path:
    *places, last = _places(workdir, common=owner is None)
    for place in places:
        with contextlib.suppress(OSError):  # a read-only view of the machine's directories
            place.mkdir(mode=0o700, exist_ok=True)
            if machine.is_own_directory(place):
                place.chmod(0o700 if owner is None else 0o711)
                return place
    last.mkdir(mode=0o700, exist_ok=True)
    last.chmod(0o700 if owner is None else 0o711)
    return last


def _write(path: Path, value: bytes, owner: Optional[Owner]) -> None:
    with open(private_files.create(path), "wb") as file:
        file.write(value)
        file.flush()
        if owner is not None:
            machine.give_file(file.fileno(), *owner)
    path.chmod(0o400)
