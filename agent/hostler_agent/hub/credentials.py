"""What the agent attaches with, and how it is kept out of the reach of builds.

Builds that run as the agent's own user can read all its files. Where they do, a latent agent keeps
no credentials in files: its session secret is in its memory alone, and its one-time token is
destroyed once the hub has accepted it. No build can then attach as the instance. Nor can the agent
itself after it was killed, so that its instance is replaced; unless its service manager keeps the
credentials for its next process (`machine.keep_secret`).

Where builds are other users, private files keep both for the next process (E9). So they do for the
agent of a permanent worker, whose password is in a file anyway.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Optional

from hostler_agent import machine
from hostler_agent.hub.session_secret import session_secret

if TYPE_CHECKING:
    from pathlib import Path

    from hostler_agent.config import Config

log = logging.getLogger(__name__)


@dataclass
class Credentials:
    """The agent's token and session secret.

    `process` is the id of this process, which nobody else knows; `former` that of the process
    whose place this one takes, if the service manager kept it. `token_file` is to be destroyed.
    """

    token: str = field(repr=False)
    session: str = field(repr=False)
    process: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)
    former: Optional[str] = field(default=None, repr=False)
    token_file: Optional[Path] = None

    @classmethod
    def of(cls, config: Config, *, isolated: bool) -> Credentials:
        """The credentials of the configured agent. Raises OSError.

        `isolated`: builds are other users than the agent.
        """
        if config.instance is None or isolated:
            return cls(config.password, session_secret(config.workdir, config.root_name))
        kept = config.kept or {}
        made = cls(
            token=config.password,
            session=kept.get("session") or secrets.token_urlsafe(32),
            former=kept.get("process"),
            token_file=config.token_file,
        )
        made._keep(made.former or made.process)
        return made

    def accepted(self) -> None:
        """The hub has accepted the credentials: destroy the token's file."""
        if self.token_file is not None:
            _destroy(self.token_file)
            self.token_file = None
            self._keep(self.process)

    def _keep(self, process: str) -> None:
        """Have the service manager keep the credentials for the next process, if it can.

        `process`: the id of the process that the hub has accepted last.
        """
        kept = {"token": self.token, "session": self.session, "process": process}
        machine.keep_secret(json.dumps(kept).encode())


def kept_credentials() -> Optional[dict[str, str]]:
    """What the service manager kept of the process before this one, or None."""
    secret = machine.kept_secret()
    if secret is None:
        return None
    try:
        kept = json.loads(secret)
    except ValueError:
        return None
    is_whole = isinstance(kept, dict) and {"token", "session", "process"} <= kept.keys()
    return kept if is_whole else None


def _destroy(path: Path) -> None:
    """Empty the file, and remove it where the agent may do that."""
    try:
        with contextlib.suppress(FileNotFoundError):
            os.truncate(path, 0)
    except OSError as error:
        log.error("the token in %s cannot be destroyed: %s", path, error)  # noqa: TRY400
    with contextlib.suppress(OSError):
        path.unlink()
