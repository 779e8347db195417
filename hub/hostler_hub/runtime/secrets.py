"""Secrets by reference: definitions name them, the hub's machine has them (V14).

A reference is ``{"env": "HOSTLER_SECRET_X"}`` or ``{"file": "name"}``: a variable of the hub's own
environment with that prefix, or a file in its directory of secrets. Nothing else of the machine
can be named, so that whoever may define workers may not read the hub's files.
"""

from __future__ import annotations

import os
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
        flags = os.O_RDONLY | os.O_NOFOLLOW
        try:
            with open(os.open(self.directory / name, flags), encoding="utf-8") as file:
                text = file.read(SIZE_BYTES + 1)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            hint = "put it there, readable by the hub's user"
            text = f"secret file {name} in {self.directory}: {reason}; {hint}"
            raise SecretRefused(text) from None
        if not text.strip() or len(text) > SIZE_BYTES:
            raise SecretRefused(f"secret file {name}: must hold 1 to {SIZE_BYTES} characters")
        return text.rstrip("\r\n")


NO_SECRETS = Secrets()


def secrets_of(settings: Settings) -> Secrets:
    """The secrets of the hub's directory for them and of its environment variables."""
    given = settings.secrets_dir
    directory = Path(given) if given else settings.state_dir / "secrets"
    environ = {name: value for name, value in os.environ.items() if name.startswith(ENV_PREFIX)}
    return Secrets(directory, environ)
