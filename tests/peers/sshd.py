"""OpenSSH's sshd with keys and a configuration of its own, on a port of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ports
from stopping import resume, stop

if TYPE_CHECKING:
    from collections.abc import Iterator

_INSTALL = "OpenSSH's server is missing: apt-get install openssh-server"
_PROGRAM = Path("/usr/sbin/sshd")
READY_S = 60.0


def missing() -> str | None:
    """Why there can be no sshd on this machine and what to do about it, or None."""
    if not _PROGRAM.exists() or shutil.which("ssh-keygen") is None:
        return _INSTALL
    return None


class Sshd:
    """A server; `lines` are more of its configuration, `prefix` runs it in another namespace.

    Logins have the server's directory as their home.
    """

    def __init__(
        self,
        directory: Path,
        *lines: str,
        prefix: Sequence[str] = (),
        address: str = "127.0.0.1",
    ) -> None:
        self.directory = directory
        self.port = ports.free()
        self.address = address
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self._lines = lines
        self._prefix = prefix
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        self.client_key = make_key(directory / "client")
        self.host_key = make_key(directory / "host")
        shutil.copy(f"{self.client_key}.pub", directory / "authorized_keys")

    @property
    def public_host_key(self) -> str:
        """As option `host_key` wants it."""
        return " ".join(self.host_key.with_suffix(".pub").read_text().split()[:2])

    def start(self) -> None:
        """Start it, with whatever its host key is now; returns when it answers."""
        config = self._write_configuration()
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (self.directory / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, str(_PROGRAM), "-D", "-e", "-f", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _await_listener(self.address, self.port, self._process)

    def stop(self) -> None:
        """End it and every login."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.drop()
                self._process.send_signal(signal.SIGKILL)
            self._process.wait(60)
            self._process = None

    def drop(self) -> None:
        """Break every connection; the server goes on."""
        self._each_connection(lambda child: os.kill(child, signal.SIGKILL))

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """The connections there are stand still meanwhile; the server goes on."""
        self._each_connection(stop)
        try:
            yield
        finally:
            self._each_connection(resume)

    def _each_connection(self, act: Callable[[int], None]) -> None:
        """To the children, each of which has a connection."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        for child in children.split():
            with contextlib.suppress(ProcessLookupError):
                act(int(child))

    def reconfigure(self, *lines: str) -> None:
        """Go on with other lines of configuration. Connections there are stay as they were."""
        assert self._process is not None
        log = self.directory / "sshd.log"
        began = log.read_text().count("Server listening")
        self._lines = lines
        self._write_configuration()
        self._process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + READY_S
        while log.read_text().count("Server listening") == began:
            if time.monotonic() > deadline:
                raise RuntimeError("sshd did not read its configuration again")
            time.sleep(0.02)

    def change_host_key(self) -> None:
        """From the next start on it has another."""
        self.host_key.unlink()
        self.host_key.with_suffix(".pub").unlink()
        make_key(self.host_key)

    def _write_configuration(self) -> Path:
        config = self.directory / "sshd_config"
        config.write_text("\n".join((*self._configuration(), *self._lines)) + "\n")
        return config

    def _configuration(self) -> Iterator[str]:
        yield f"ListenAddress {self.address}"
        yield f"Port {self.port}"
        yield f"HostKey {self.host_key}"
        yield f"AuthorizedKeysFile {self.directory / 'authorized_keys'}"
        yield f"PidFile {self.directory / 'sshd.pid'}"
        yield "StrictModes no"
        yield "UsePAM no"
        yield "PermitRootLogin yes"
        yield "PasswordAuthentication no"
        yield "LogLevel VERBOSE"
        yield "Subsystem sftp internal-sftp"
        # A shell's start files are the machine's own affair, and take their time.
        yield f"SetEnv HOME={self.directory}"


def make_key(path: Path, passphrase: str = "") -> Path:
    """A pair of keys at `path` and `path`.pub."""
    quiet = ["ssh-keygen", "-q", "-t", "ed25519", "-C", "test"]
    subprocess.run([*quiet, "-N", passphrase, "-f", path], check=True)
    return path


def _await_listener(address: str, port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError("sshd does not answer")
