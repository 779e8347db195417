"""Logs a user in to a server whose host key is known to be right: which keys are offered, and in
which order.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
from paramiko.agent import AgentSSH
from paramiko.ssh_exception import AuthenticationException, SSHException

from hostler_hub.drivers.transports.errors import AuthenticationFailed
from hostler_hub.drivers.transports.ssh.client_config import AUTHENTICATION, ClientSettings
from hostler_hub.drivers.transports.ssh.keys import KeyRefused, load_private, parse_private
from hostler_hub.drivers.transports.ssh.route import Leg
from hostler_hub.runtime.errors import SecretRefused
from hostler_hub.runtime.secrets import Secrets

AGENT_DEADLINE_S = 10.0
_CERTIFICATE = "-cert.pub"


@dataclass
class Credentials:
    """What a user has to log in with. `passed_over` says which keys cannot be offered, and why."""

    key: paramiko.PKey | None = None
    password: str | None = None
    passphrase: str | None = None
    passed_over: list[str] = field(default_factory=list)


def credentials(leg: Leg, secrets: Secrets) -> Credentials:
    """Look up the secrets that the options refer to. Raises AuthenticationFailed."""
    hop = leg.hop
    if hop is None:
        return Credentials()
    try:
        found = Credentials(
            passphrase=secrets.of_option("passphrase", hop.passphrase),
            password=secrets.of_option("password", hop.password),
        )
        key = secrets.of_option("key", hop.key)
        if key is not None:
            found.key = parse_private(key, found.passphrase)
    except SecretRefused as refusal:
        raise AuthenticationFailed(f"{leg.address}: {refusal}") from refusal
    except KeyRefused as error:
        raise AuthenticationFailed(f"{leg.address}: option 'key': {error}") from None
    return found


def authenticate(transport: paramiko.Transport, leg: Leg, given: Credentials) -> None:
    """Log in, with one method after the other until the server is content. Raises
    AuthenticationFailed and what paramiko raises for a broken connection.
    """
    user, last = leg.settings.user, None
    with contextlib.closing(_keys(leg.settings, given)) as keys:
        for key in keys:
            last = _try_key(transport, user, key) or last
            if transport.is_authenticated():
                return
    if given.password is not None:
        with contextlib.suppress(AuthenticationException):
            transport.auth_password(user, given.password)
    elif last is None:
        # Some servers let anybody in who asks; and all say here what they would take.
        with contextlib.suppress(AuthenticationException):
            transport.auth_none(user)
    if not transport.is_authenticated():
        raise AuthenticationFailed(_why(leg, given, last))


def _try_key(
    transport: paramiko.Transport, user: str, key: paramiko.PKey
) -> AuthenticationException | None:
    """Offer a key. A server may want more than one (its AuthenticationMethods)."""
    try:
        transport.auth_publickey(user, key)
    except AuthenticationException as error:
        return error
    except SSHException as error:
        if not transport.is_active():
            raise
        return AuthenticationException(str(error))  # the agent would not sign, or no algorithm fits
    return None


def _why(leg: Leg, given: Credentials, last: Exception | None) -> str:
    words = str(last or "Authentication failed.")
    notes = list(given.passed_over)
    unused = leg.settings.set_of(AUTHENTICATION)
    if unused:
        notes.append(f"{', '.join(unused)}: not supported here")
    why = f" ({'; '.join(notes)})" if notes else ""
    return f"{leg.address} does not let us in: {words}{why}; see the options user, key and password"


def _keys(settings: ClientSettings, given: Credentials) -> Generator[paramiko.PKey, None, None]:
    """The option's key, then, if an ssh_config counts, the keys of its files and the agent's."""
    if given.key is not None:
        yield given.key
    if not settings.is_asked or not settings.flag("pubkeyauthentication", True):
        return
    files = settings.paths("identityfile")
    yield from _file_keys(settings, files, given)
    if settings.agent is not None:
        yield from _agent_keys(settings, files, given)


def _file_keys(
    settings: ClientSettings, files: list[Path], given: Credentials
) -> Iterator[paramiko.PKey]:
    certificates = settings.paths("certificatefile")
    for file in files:
        try:
            key = load_private(file, given.passphrase, None)
        except FileNotFoundError:
            continue
        except (KeyRefused, OSError) as error:
            given.passed_over.append(f"{file}: {getattr(error, 'strerror', None) or error}")
            continue
        for certificate in (*certificates, file.with_name(file.name + _CERTIFICATE)):
            with contextlib.suppress(FileNotFoundError):
                try:
                    yield load_private(file, given.passphrase, certificate)
                except KeyRefused as error:
                    given.passed_over.append(str(error))
        yield key


def _agent_keys(
    settings: ClientSettings, files: list[Path], given: Credentials
) -> Iterator[paramiko.PKey]:
    """The keys of the user's ssh-agent: all, or with IdentitiesOnly those of the files."""
    wanted = None
    if settings.flag("identitiesonly", False):
        wanted = {blob for file in files for blob in _public(file)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(AGENT_DEADLINE_S)
        try:
            connection.connect(str(settings.agent))
            agent = AgentSSH()
            # paramiko's own classes for agents take no other socket than that of the environment.
            agent._connect(connection)  # noqa: SLF001
        except (OSError, SSHException) as error:
            given.passed_over.append(f"agent {settings.agent}: {error}")
            return
        for key in agent.get_keys():
            if wanted is None or key.asbytes() in wanted:
                yield key


def _public(file: Path) -> Iterator[bytes]:
    """The public key beside a private key's file, or of a file that is one itself."""
    for path in (file.with_name(file.name + ".pub"), file):
        with contextlib.suppress(Exception):  # what cannot be read names no key
            yield paramiko.pkey.PublicBlob.from_file(str(path)).key_blob
