"""Private keys, in every format that OpenSSH reads."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from paramiko.ssh_exception import SSHException

_TAKEN = (RSAPrivateKey, EllipticCurvePrivateKey, Ed25519PrivateKey)
_KINDS = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)
_PKCS8 = ("-----BEGIN PRIVATE KEY-----", "-----BEGIN ENCRYPTED PRIVATE KEY-----")
_ENCRYPTED = "the key is encrypted; give its 'passphrase'"
# What people put there instead, by how it begins.
_MISTAKEN = {
    "PuTTY-User-Key-File": "a key of PuTTY; convert it (puttygen KEY -O private-openssh)",
    "ssh-": "a public key; give the private one (the file without .pub)",
    "ecdsa-": "a public key; give the private one (the file without .pub)",
    "-----BEGIN DSA PRIVATE KEY-----": "a DSA key, which servers no longer accept",
    "-----BEGIN CERTIFICATE-----": "a certificate, without its key",
}
KEY_BYTES = 64 * 1024


class KeyRefused(ValueError):
    """A text is no private key that can be used. The message contains nothing of the key."""


def parse_private(text: str, passphrase: str | None) -> paramiko.PKey:
    """Parse a private key: OpenSSH's own format, PEM or PKCS#8. Raises KeyRefused."""
    text = text.strip() + "\n"
    for beginning, what in _MISTAKEN.items():
        if text.startswith(beginning):
            raise KeyRefused(f"the secret is {what}")
    if any(each in text for each in _PKCS8):
        text, passphrase = _of_pkcs8(text, passphrase), None
    for kind in _KINDS:
        key = _of_kind(kind, text, passphrase)
        if key is not None:
            return key
    wrong = "or the passphrase is wrong" if passphrase else "as ssh-keygen or openssl makes them"
    raise KeyRefused(f"the secret is no private key (Ed25519, ECDSA, RSA), {wrong}")


def load_private(path: Path, passphrase: str | None, certificate: Path | None) -> paramiko.PKey:
    """Read a private key from a file, with its certificate if there is one. Raises KeyRefused and
    OSError.
    """
    with path.open("rb") as file:
        text = file.read(KEY_BYTES).decode("utf-8", "replace")
    key = parse_private(text, passphrase)
    if certificate is not None:
        content = certificate.read_text("utf-8", "replace")[:KEY_BYTES]
        try:
            key.load_certificate(content)
        # paramiko reads it without checks, and breaks in many ways on what is none.
        except Exception as error:  # noqa: BLE001
            text = f"{certificate} is no certificate of {path}: {error}"
            raise KeyRefused(text) from None
    return key


def _of_pkcs8(text: str, passphrase: str | None) -> str:
    """The key in OpenSSH's format, which paramiko can read. Raises KeyRefused."""
    try:
        key = serialization.load_pem_private_key(text.encode(), (passphrase or "").encode() or None)
    except TypeError:  # a passphrase where none is needed, or none where one is
        if passphrase:
            return _of_pkcs8(text, None)
        raise KeyRefused(_ENCRYPTED) from None
    except (ValueError, UnsupportedAlgorithm):
        wrong = "or the passphrase is wrong" if passphrase else "in PKCS#8"
        raise KeyRefused(f"the secret is no private key (Ed25519, ECDSA, RSA) {wrong}") from None
    if not isinstance(key, _TAKEN):
        raise KeyRefused(f"the secret is a key of a kind that SSH does not take: {_kind(key)}")
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    ).decode()


def _kind(key: object) -> str:
    return type(key).__name__.removesuffix("PrivateKey")


def _of_kind(kind: Any, text: str, passphrase: str | None) -> paramiko.PKey | None:
    try:
        return kind.from_private_key(io.StringIO(text), passphrase)
    except paramiko.PasswordRequiredException:
        raise KeyRefused(_ENCRYPTED) from None
    # paramiko and what it stands on have no common exception for a text that is no key of theirs.
    except (SSHException, ValueError, IndexError, TypeError, KeyError, UnsupportedAlgorithm):
        return None
    except Exception:  # noqa: BLE001 - and some raise what they document nowhere
        return None
