"""A program whose standard input and output lead to a machine: ProxyCommand of an ssh_config."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile

from hostler_hub.drivers.transports.errors import Unreachable
from hostler_hub.drivers.transports.ssh.client_config import environment

_SAID_BYTES = 400


class ProxyCommand:
    """A running command, and the socket that leads to the machine. The hub's user is trusted with
    the command, which runs in that user's shell as OpenSSH's client runs it.
    """

    def __init__(self, command: str) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self.socket, theirs = socket.socketpair()
        shell = os.environ.get("SHELL") or "/bin/sh"
        try:
            self._process = subprocess.Popen(
                [shell, "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._said,
                env=environment(),
                start_new_session=True,
            )
        except OSError as error:
            self.socket.close()
            self._said.close()
            raise Unreachable(f"ssh_config: ProxyCommand: {shell}: {error.strerror}") from error
        finally:
            theirs.close()

    def last_words(self) -> str:
        """The end of what the command has printed to standard error."""
        size = os.fstat(self._said.fileno()).st_size
        said = os.pread(self._said.fileno(), _SAID_BYTES, max(0, size - _SAID_BYTES))
        return said.decode("utf-8", "replace").strip()

    def close(self) -> None:
        """End the command and what it has started."""
        self.socket.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._said.close()
