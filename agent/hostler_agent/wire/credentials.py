"""HTTP Basic credentials (RFC 7617) of the opening handshake."""

from __future__ import annotations

import base64
import binascii

from hostler_agent.wire.errors import CredentialsError

MAX_HEADER_BYTES = 4096


def encode_basic(name: str, password: str) -> str:
    """The value of the Authorization header. Raises CredentialsError, also for a name with a colon,
    which could not be decoded (section 2).
    """
    if ":" in name:
        raise CredentialsError("a name with a colon cannot be sent")
    if not (name + password).isprintable():
        raise CredentialsError("a name or password with control characters cannot be sent")
    try:
        plain = f"{name}:{password}".encode()
    except UnicodeEncodeError:
        # Not chained: the original's text shows the password.
        raise CredentialsError("a name or password is not valid Unicode") from None
    return "Basic " + base64.b64encode(plain).decode("ascii")


def decode_basic(header: str) -> tuple[str, str]:
    """Decode the value of an Authorization header into (name, password). Raises
    CredentialsError.
    """
    if len(header) > MAX_HEADER_BYTES:
        raise CredentialsError(f"credentials are longer than {MAX_HEADER_BYTES} bytes")
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        raise CredentialsError("credentials are not of the scheme Basic")
    try:
        plain = base64.b64decode(encoded.strip(" "), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        raise CredentialsError("credentials are not base64 of UTF-8") from None
    name, colon, password = plain.partition(":")
    if not colon:
        raise CredentialsError("credentials have no colon")
    if not plain.isprintable():
        raise CredentialsError("credentials have control characters")
    return name, password
