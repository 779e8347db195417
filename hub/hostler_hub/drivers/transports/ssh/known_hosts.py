"""The known host keys of machines: a file in OpenSSH's format, kept by the hub and edited by
people.
"""

from __future__ import annotations

import os
import threading
from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path

import paramiko

from hostler_hub.drivers.transports.errors import HostKeyUnknown
from hostler_hub.runtime import private_files

SSH_PORT = 22


class KnownHosts:
    """A known_hosts file, which need not exist yet. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def load(self) -> paramiko.HostKeys:
        """Read all keys in the file."""
        with self._lock:
            return self._read()

    def add(self, name: str, key: paramiko.PKey) -> bool:
        """Add the key of a new machine. Returns whether the machine is known by this key now.

        Returns False if the machine is known by other keys.
        """
        with self._lock:
            known = self._read().lookup(name)
            if known is not None:
                return key in known.values()
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = private_files.open_or_create(self.path, os.O_WRONLY | os.O_APPEND)
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(f"{name} {key.get_name()} {key.get_base64()}\n")
                file.flush()
                os.fsync(file.fileno())
            return True

    def _read(self) -> paramiko.HostKeys:
        return paramiko.HostKeys(str(self.path) if self.path.exists() else None)


def name_of(host: str, port: int) -> str:
    """The name of a machine in a known_hosts file."""
    return host if port == SSH_PORT else f"[{host}]:{port}"


def fingerprint(key: paramiko.PKey) -> str:
    """The key's type and SHA-256 fingerprint, in the format of `ssh-keygen -l`."""
    digest = b64encode(sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} SHA256:{digest}"


def parse(line: str) -> paramiko.PKey:
    """Parse the key in a line of a .pub file. Raises ValueError."""
    kind, _, encoded = line.partition(" ")
    try:
        return paramiko.PKey.from_type_string(kind, b64decode(encoded, validate=True))
    except (paramiko.SSHException, ValueError, IndexError) as error:
        raise ValueError(f"it is no public key: {error}") from None


class FirstContact(paramiko.MissingHostKeyPolicy):  # type: ignore[misc] # it has no types
    """Decides on an unknown host key: refuses it, or with `accept_new` stores it as known."""

    def __init__(self, known: KnownHosts, *, accept_new: bool) -> None:
        self._known = known
        self._accept_new = accept_new

    def missing_host_key(self, client: object, hostname: str, key: paramiko.PKey) -> None:
        """Accept the key by returning. Called by paramiko for an unknown key. Raises
        HostKeyUnknown.
        """
        del client
        if self._accept_new and self._known.add(hostname, key):
            return
        line = f"{key.get_name()} {key.get_base64()}"
        raise HostKeyUnknown(
            f"{hostname} is not known; if {fingerprint(key)} is its key, set option 'host_key' to "
            f"{line!r}, add it to {self._known.path}, or set 'accept_new'"
        )
