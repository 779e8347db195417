"""The algorithms that a connection may negotiate: those that an ssh_config permits, and the host
keys by which the machine is known before any other.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import paramiko

from hostler_hub.drivers.transports.errors import NotConfigured
from hostler_hub.drivers.transports.ssh.client_config import ClientSettings, Destination, ask

# Keywords of ssh_config, and paramiko's names for the same.
_LISTS = {"ciphers": "ciphers", "macs": "digests", "kexalgorithms": "kex"}
_RSA = ("rsa-sha2-512", "rsa-sha2-256")


def restrict(
    transport: paramiko.Transport, settings: ClientSettings, known: Sequence[str], wait_s: float
) -> None:
    """Restrict a connection before it begins. `known` are the types of the keys by which the
    machine is known. Raises NotConfigured where nothing is left.
    """
    options = transport.get_security_options()
    for keyword, name in _LISTS.items():
        permitted = settings.algorithms(keyword)
        if permitted:
            setattr(options, name, _common(permitted, getattr(options, name), settings, keyword))
    keyword = "hostkeyalgorithms"
    permitted = settings.algorithms(keyword)
    kinds = list(options.key_types)
    if permitted:
        kinds = _common(permitted, kinds, settings, keyword)
    if not permitted or permitted == _client_default(keyword, wait_s):
        # Otherwise the order is somebody's choice, which OpenSSH's client follows as well.
        first = [each for kind in known for each in (_RSA if kind == "ssh-rsa" else (kind,))]
        kinds.sort(key=lambda kind: first.index(kind) if kind in first else len(first))
    options.key_types = kinds


def _common(
    permitted: Sequence[str], ours: Sequence[str], settings: ClientSettings, keyword: str
) -> list[str]:
    common = [each for each in permitted if each in ours]
    if not common:
        text = f"ssh_config: {settings.alias}: {keyword}: none of these is supported here"
        raise NotConfigured(f"{text}; supported are {', '.join(ours)}")
    return common


@functools.cache
def _client_default(keyword: str, wait_s: float) -> list[str]:
    """What OpenSSH's client permits where its configuration says nothing."""
    return ask(Path("/nonexistent"), Destination("localhost"), wait_s).algorithms(keyword)
