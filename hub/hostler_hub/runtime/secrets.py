"""Secrets by reference: definitions name them, the hub's machine has them (V14).

A reference is ``{"env": "HOSTLER_SECRET_X"}`` or ``{"file": "name"}``: a variable of the hub's own
environment with that prefix, or a file in its directory of secrets. Nothing else of the machine
can be named, so that whoever may define workers may not read the hub's files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hostler_hub.runtime.errors import SecretRefused
from hostler_hub.runtime.settings import Settings
from hostler_hub.specs.secret_ref import ENV_PREFIX, SecretRef

__all__ = ["ENV_PREFIX", "NO_SECRETS", "SecretRef", "SecretRefused", "Secrets"]

SIZE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Secrets:
    """Where references lead on this machine."""

    directory: Path | None = None
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def resolve(self, ref: SecretRef) -> str:
        """The secret, without the newline an editor adds. Raises SecretRefused."""
        if ref.env is not None:
            value = self.environ.get(ref.env)
            if not value:
                raise SecretRefused(
                    f"the hub's environment has no variable {ref.env}; set it there"
                )
            return value
        return self._read(ref.file or "")

    def of_option(self, name: str, ref: SecretRef | None) -> str | None:
        """What an option refers to, if given. Raises SecretRefused, which names the option."""
        try:
            return None if ref is None else self.resolve(ref)
        except SecretRefused as refusal:
            raise SecretRefused(f"option {name!r}: {refusal}") from refusal

    def _read(self, name: str) -> str:
        if self.directory is None:
            raise SecretRefused(f"secret file {name}: this hub has no directory of secrets")
        try:
            text = read_file(self.directory, name).decode()
        except UnicodeDecodeError:
            raise SecretRefused(f"secret file {name} in {self.directory}: it is no text") from None
        if not text.strip():
            raise SecretRefused(f"secret file {name}: must hold 1 to {SIZE_BYTES} bytes of text")
        return text.replace("\r\n", "\n").rstrip("\r\n")


NO_SECRETS = Secrets()


def read_file(directory: Path, name: str, forbidden_mode: int = 0) -> bytes:
    """The content of a regular file in a directory of secrets; no link is followed, and a named
    pipe is not waited for. Raises SecretRefused, also if the file has a bit of ``forbidden_mode``.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(directory / name, flags), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise SecretRefused(f"secret file {name} in {directory}: it is no regular file")
            if mode & forbidden_mode:
                text = f"secret file {name} in {directory} has mode {stat.S_IMODE(mode):04o}"
                raise SecretRefused(f"{text}, which lets others at it; run chmod 600")
            content = file.read(SIZE_BYTES + 1)
    except OSError as error:
        hint = "put it there, readable by the hub's user"
        text = f"secret file {name} in {directory}: {error.strerror}; {hint}"
        raise SecretRefused(text) from None
    if len(content) > SIZE_BYTES:
        raise SecretRefused(f"secret file {name}: must hold at most {SIZE_BYTES} bytes")
    return content


def secrets_of(settings: Settings) -> Secrets:
    """The secrets of the hub's directory for them and of its environment variables."""
    environ = {name: value for name, value in os.environ.items() if name.startswith(ENV_PREFIX)}
    return Secrets(settings.secrets_path, environ)
