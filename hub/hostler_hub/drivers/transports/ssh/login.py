"""Logs in: opens an authenticated connection through the jump hosts, and checks every host key.

Each login on the way is a connection of paramiko of its own, inside a channel of the one before.
A host key is checked here before anything else is sent: an unknown key is accepted only where the
options or the ssh_config permit it, a changed or revoked one never.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
import structlog

from hostler_hub.drivers.transports.errors import (
    AuthenticationFailed,
    HostKeyChanged,
    HostKeyUnknown,
)
from hostler_hub.drivers.transports.ssh import algorithms
from hostler_hub.drivers.transports.ssh.access import SshAccess
from hostler_hub.drivers.transports.ssh.authentication import authenticate, credentials
from hostler_hub.drivers.transports.ssh.client_config import TRUST
from hostler_hub.drivers.transports.ssh.known_hosts import Known, KnownHosts, fingerprint, parse
from hostler_hub.drivers.transports.ssh.proxy_command import ProxyCommand
from hostler_hub.drivers.transports.ssh.route import Leg, legs
from hostler_hub.drivers.transports.ssh.translation import translate
from hostler_hub.runtime.secrets import Secrets

# paramiko logs, with traces, what it also raises; what it raises is all that is needed.
_QUIET = "hostler_hub.drivers.transports.protocol"
logging.getLogger(_QUIET).setLevel(logging.CRITICAL + 1)

_log = structlog.get_logger(__name__)

KEEPALIVE_S = 20


@dataclass(frozen=True)
class LoginMaterial:
    """What a login needs beside the options: known hosts, secrets, and the ssh_config file that
    option `ssh_config` permits.
    """

    known: KnownHosts
    ssh_config: Path
    secrets: Secrets


@dataclass
class Login:
    """The connections to the jump hosts and, last, to the machine itself."""

    transports: list[paramiko.Transport] = field(default_factory=list)
    proxy: ProxyCommand | None = None

    @property
    def transport(self) -> paramiko.Transport:
        """The connection to the machine itself."""
        return self.transports[-1]

    @property
    def is_open(self) -> bool:
        """Whether the machine can still be reached by it, as far as is known."""
        return bool(self.transports) and self.transport.is_active()

    def close(self) -> None:
        """Close all connections, the innermost first. Blocks."""
        for each in reversed(self.transports):
            _close(each)
        if self.proxy is not None:
            self.proxy.close()


def _close(transport: paramiko.Transport) -> None:
    try:
        transport.close()
        transport.sock.close()  # paramiko leaves it open where the connection never began
    except Exception:  # noqa: BLE001 - a thread's boundary: it is given up, whatever it says
        _log.debug("closing a connection failed", exc_info=True)


def log_in(access: SshAccess, material: LoginMaterial) -> Login:
    """Open a connection and log in. Blocks; each phase takes at most `connect_timeout_s`. Raises
    TransportError, always with `sent` False.
    """
    login, at, way = Login(), access.target.address, ""
    try:
        route = legs(access, material.ssh_config)
        for leg in route:
            at = leg.address
            way = "" if leg is route[-1] else f"on the way to {route[-1].address}: "
            _connect(login, leg, access.connect_timeout_s, material)
        login.transport.set_keepalive(KEEPALIVE_S)
    except Exception as error:
        words = login.proxy.last_words() if login.proxy is not None else ""
        login.close()
        raise translate(error, way + at, words) from error
    return login


def _connect(login: Login, leg: Leg, wait_s: float, material: LoginMaterial) -> None:
    """Connect to one machine, through the one before it, and log in there."""
    given = credentials(leg, material.secrets)
    pinned = _pinned(leg)
    files = leg.settings.known_hosts if leg.settings.is_asked else ()
    known = material.known.of(leg.settings.host_key_names, files)
    stream = _stream(login, leg, wait_s)
    try:
        transport = paramiko.Transport(stream)
    except BaseException:
        stream.close()
        raise
    login.transports.append(transport)
    transport.set_log_channel(_QUIET)
    transport.banner_timeout = transport.auth_timeout = transport.channel_timeout = wait_s
    kinds = known.kinds if pinned is None else (pinned.get_name(),)
    algorithms.restrict(transport, leg.settings, kinds, wait_s)
    transport.start_client(timeout=wait_s)
    if not transport.initial_kex_done:  # paramiko returns when the time is up
        raise TimeoutError
    _check_host_key(transport.get_remote_server_key(), leg, known, pinned, material.known)
    authenticate(transport, leg, given)


def _stream(login: Login, leg: Leg, wait_s: float) -> socket.socket | paramiko.Channel:
    host, port = leg.settings.hostname, leg.settings.port
    if login.transports:
        where = (host, port)
        return login.transport.open_channel("direct-tcpip", where, ("", 0), timeout=wait_s)
    if leg.settings.proxy_command:
        login.proxy = ProxyCommand(leg.settings.proxy_command)
        return login.proxy.socket
    return _dial(host, port, leg.settings.text("addressfamily"), wait_s)


def _dial(host: str, port: int, family: str, wait_s: float) -> socket.socket:
    """Connect to the first of the host's addresses that answers. Raises OSError, the last
    address's.
    """
    kind = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}.get(family, socket.AF_UNSPEC)
    failure: OSError | None = None
    for found, _, _, _, address in socket.getaddrinfo(host, port, kind, socket.SOCK_STREAM):
        stream = socket.socket(found, socket.SOCK_STREAM)
        try:
            stream.settimeout(wait_s)
            stream.connect(address)
        except OSError as error:
            stream.close()
            failure = error
        else:
            return stream
    raise failure or OSError("it has no address")


def _pinned(leg: Leg) -> paramiko.PKey | None:
    if leg.hop is None or leg.hop.host_key is None:
        return None
    try:
        return parse(leg.hop.host_key)
    except ValueError as error:
        raise AuthenticationFailed(f"{leg.address}: option 'host_key': {error}") from None


def _check_host_key(
    key: paramiko.PKey,
    leg: Leg,
    known: Known,
    pinned: paramiko.PKey | None,
    hub_known: KnownHosts,
) -> None:
    """Return if the server has the key that it is known by. Raises HostKeyChanged and
    HostKeyUnknown.
    """
    name, blob = leg.settings.host_key_names[0], key.asbytes()
    if blob in known.revoked:
        raise HostKeyChanged(
            f"{leg.address}: its key {fingerprint(key)} is revoked in known_hosts; give the "
            "machine a new key"
        )
    expected = known.keys if pinned is None else {pinned.asbytes()}
    if blob in expected:
        return
    if expected:
        raise HostKeyChanged(_changed(leg, key, sorted(expected)))
    accepts_new = (leg.hop is not None and leg.hop.accept_new) or leg.settings.accepts_new
    if not accepts_new or not hub_known.add(name, key):
        raise HostKeyUnknown(_unknown(leg, key, known, hub_known.path))


def _known_as(leg: Leg) -> str:
    """The machine, with the name that an ssh_config gives it in known_hosts."""
    alias = leg.settings.text("hostkeyalias")
    return f"{leg.address} (HostKeyAlias {alias})" if alias else leg.address


def _changed(leg: Leg, key: paramiko.PKey, expected: Sequence[bytes]) -> str:
    instead = " or ".join(fingerprint(each) for each in expected)
    return (
        f"{_known_as(leg)} has another key than it is known by: {fingerprint(key)} instead of "
        f"{instead}; somebody may be in between. If the machine was set up anew, correct option "
        "'host_key' or the known_hosts file"
    )


def _unknown(leg: Leg, key: paramiko.PKey, known: Known, file: Path) -> str:
    line = f"{key.get_name()} {key.get_base64()}"
    unused = leg.settings.set_of(TRUST)
    if known.has_authority:
        unused.append("@cert-authority in known_hosts")
    notes = f" ({', '.join(unused)}: not supported here)" if unused else ""
    return (
        f"{_known_as(leg)} is not known{notes}; if {fingerprint(key)} is its key, set option "
        f"'host_key' to {line!r}, add it to {file}, or set 'accept_new'"
    )
