"""Logs in: opens an authenticated connection, checks host keys, and looks up credentials.

fabric supports ssh_config, jump hosts and proxy commands. By default it accepts unknown host keys,
which must never happen: `_harden` sets the right policy for every machine on the way.
"""

from __future__ import annotations

import io
import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fabric
import paramiko
import structlog
from paramiko.ssh_exception import (
    AuthenticationException,
    BadHostKeyException,
    ChannelException,
    NoValidConnectionsError,
    SSHException,
)

from hostler_hub.drivers.transports.errors import (
    AuthenticationFailed,
    HostKeyChanged,
    Refused,
    TransportError,
    Unreachable,
)
from hostler_hub.drivers.transports.ssh.access import Hop, SshAccess
from hostler_hub.drivers.transports.ssh.known_hosts import (
    FirstContact,
    KnownHosts,
    fingerprint,
    name_of,
    parse,
)
from hostler_hub.runtime.errors import SecretRefused
from hostler_hub.runtime.secrets import Secrets

# paramiko logs, with traces, what it also raises; what it raises is all that is needed.
_QUIET = "hostler_hub.drivers.transports.protocol"
logging.getLogger(_QUIET).setLevel(logging.CRITICAL + 1)

_log = structlog.get_logger(__name__)

KEEPALIVE_S = 20
_KEY_KINDS = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)


@dataclass(frozen=True)
class LoginMaterial:
    """What a login needs beside the options: known hosts, secrets, and the ssh_config file that
    option `ssh_config` permits.
    """

    known: KnownHosts
    ssh_config: Path
    secrets: Secrets


def log_in(access: SshAccess, material: LoginMaterial) -> fabric.Connection:
    """Open a connection and log in. Blocks; each phase takes at most `connect_timeout_s`. Raises
    TransportError, always with `sent` False.
    """
    connection = None
    try:
        for hop in (*access.jump, access.target):
            connection = _prepare(hop, access, material, connection)
        assert connection is not None
        connection.open()
        connection.transport.set_keepalive(KEEPALIVE_S)
    except Exception as error:
        if connection is not None:
            log_out(connection)
        raise translate(error, access.target.address) from error
    return connection


def log_out(connection: fabric.Connection) -> None:
    """Close the connection, and the connections to the jump hosts that it goes through."""
    for each in _chain(connection):
        _close(each)


def _close(connection: fabric.Connection) -> None:
    try:
        connection.client.close()
    except Exception:  # noqa: BLE001 - a thread's boundary: it is given up, whatever it says
        _log.debug("closing a connection failed", exc_info=True)


def translate(error: Exception, address: str) -> TransportError:
    """Translate an exception of fabric, paramiko or the system into a TransportError."""
    if isinstance(error, TransportError):
        return error
    if isinstance(error, BadHostKeyException):
        return HostKeyChanged(
            f"{address}: {error.hostname} has another key than it is known by: "
            f"{fingerprint(error.key)} instead of {fingerprint(error.expected_key)}; somebody may "
            "be in between. If the machine was set up anew, correct option 'host_key' or the "
            "known_hosts file"
        )
    if isinstance(error, AuthenticationException):
        return AuthenticationFailed(
            f"{address} does not let us in: {error}; see the options user, key and password"
        )
    if isinstance(error, ChannelException):
        return Refused(f"{address}: the way there was refused: {error}")
    return _unreachable(error, address)


def _unreachable(error: Exception, address: str) -> TransportError:
    if isinstance(error, NoValidConnectionsError):
        words = "; ".join(sorted({str(each.strerror) for each in error.errors.values()}))
        hint = "is its sshd running, and are the options host and port right?"
        return Unreachable(f"{address} cannot be reached: {words}; {hint}")
    if isinstance(error, socket.gaierror):
        return Unreachable(f"{address}: {error.strerror} (is option 'host' right?)")
    if isinstance(error, TimeoutError):
        hint = "is it up, and are the options host, port and connect_timeout_s right?"
        return Unreachable(f"{address} does not answer in time; {hint}")
    if isinstance(error, (SSHException, EOFError, OSError)):
        words = str(error) or type(error).__name__
        hint = " (sshd drops logins beyond its MaxStartups)" if "banner" in words else ""
        return Unreachable(f"{address}: the connection broke: {words}{hint}")
    raise error


def _prepare(
    hop: Hop, access: SshAccess, material: LoginMaterial, gateway: fabric.Connection | None
) -> fabric.Connection:
    connection = fabric.Connection(
        hop.host,
        user=hop.user,
        port=hop.port,
        gateway=gateway,
        config=_config(access, material),
        connect_timeout=max(1, int(access.connect_timeout_s)),
        connect_kwargs=_credentials(hop, access, material.secrets),
    )
    _harden(connection, hop, access, material)
    if gateway is None:  # then it may have jump hosts of the ssh_config
        for each in list(_chain(connection))[1:]:
            _harden(each, None, access, material)
    return connection


def _config(access: SshAccess, material: LoginMaterial) -> fabric.Config:
    """fabric's configuration without its own files; OpenSSH's files only if the options permit."""
    ssh_config = paramiko.SSHConfig()
    if access.ssh_config and material.ssh_config.exists():
        ssh_config = paramiko.SSHConfig.from_path(str(material.ssh_config))
    config = fabric.Config(ssh_config=ssh_config, lazy=True)
    # Jump hosts that the ssh_config names are logged in to with these.
    config.connect_kwargs = _phases(access)
    return config


def _phases(access: SshAccess) -> dict[str, Any]:
    wait_s = access.connect_timeout_s
    return {
        "banner_timeout": wait_s,
        "auth_timeout": wait_s,
        "channel_timeout": wait_s,
        "allow_agent": access.ssh_config,
        "look_for_keys": access.ssh_config,
    }


def _credentials(hop: Hop, access: SshAccess, secrets: Secrets) -> dict[str, Any]:
    found = _phases(access)
    try:
        passphrase = secrets.of_option("passphrase", hop.passphrase)
        key = secrets.of_option("key", hop.key)
        password = secrets.of_option("password", hop.password)
        if key is not None:
            found["pkey"] = _private_key(key, passphrase)
    except SecretRefused as refusal:
        raise AuthenticationFailed(f"{hop.address}: {refusal}") from refusal
    except ValueError as error:
        raise AuthenticationFailed(f"{hop.address}: option 'key': {error}") from None
    if password is not None:
        found["password"] = password
    return found


def _private_key(text: str, passphrase: str | None) -> paramiko.PKey:
    """Parse a private key. Raises ValueError, whose message contains nothing of the key."""
    for kind in _KEY_KINDS:
        key = _of_kind(kind, text, passphrase)
        if key is not None:
            return key
    wrong = "or the passphrase is wrong" if passphrase else "as ssh-keygen makes them"
    raise ValueError(f"the secret is no private key (Ed25519, ECDSA, RSA), {wrong}")


def _of_kind(kind: Any, text: str, passphrase: str | None) -> paramiko.PKey | None:
    try:
        return kind.from_private_key(io.StringIO(text + "\n"), passphrase)
    except paramiko.PasswordRequiredException:
        raise ValueError("the key is encrypted; give its 'passphrase'") from None
    except (SSHException, ValueError, IndexError):
        return None


def _harden(
    connection: fabric.Connection, hop: Hop | None, access: SshAccess, material: LoginMaterial
) -> None:
    client, name = connection.client, name_of(connection.host, connection.port)
    client.set_log_channel(_QUIET)
    pinned = None if hop is None else hop.host_key
    accept_new = hop is not None and hop.accept_new
    client.set_missing_host_key_policy(FirstContact(material.known, accept_new=accept_new))
    if pinned is not None:
        try:
            key = parse(pinned)
        except ValueError as error:
            raise AuthenticationFailed(f"{name}: option 'host_key': {error}") from None
        client.get_host_keys().add(name, key.get_name(), key)
        return
    for known, keys in material.known.load().items():
        if known == name:
            for kind, key in keys.items():
                client.get_host_keys().add(name, kind, key)
    if access.ssh_config:
        client.load_system_host_keys()


def _chain(connection: fabric.Connection) -> Iterator[fabric.Connection]:
    """Yield the connection, then the connections to the jump hosts that it goes through."""
    each: Any = connection
    while isinstance(each, fabric.Connection):
        yield each
        each = each.gateway
