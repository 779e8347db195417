"""Exceptions of the wire protocol, and whose fault each is.

    WireError
    ├── ProtocolError       the peer sent something that the protocol does not allow
    │   └── ValueRefused    a message can be read, but holds a value that nobody can store
    ├── LimitExceeded       a message, on its way in or out, is larger than agreed
    │   └── TooManyInFlight   we have too many requests waiting for answers: try again after one
    ├── CredentialsError    the handshake's credentials cannot be read or written
    └── RemoteError         the peer understood the request and answered with an error

No message ever contains a credential.
"""

from __future__ import annotations

from typing import Any


class WireError(Exception):
    """Base of the exceptions of the wire protocol."""


class ProtocolError(WireError):
    """The peer broke the protocol; the text names the operation and the key."""


class ValueRefused(ProtocolError):
    """A message holds a number that JSON or a database cannot hold. The rest of it, in `message`,
    can be read: so the one request or response is refused, and the conversation goes on.
    """

    def __init__(self, text: str, message: dict[str, Any]) -> None:
        super().__init__(text)
        self.message = message


class LimitExceeded(WireError):
    """A message is too large, too deep or has too many items; the text names the limit."""


class TooManyInFlight(LimitExceeded):
    """There are as many unanswered requests as the peer permits."""


class CredentialsError(WireError):
    """An Authorization header cannot be decoded, or a name or password cannot be encoded."""


class RemoteError(WireError):
    """The peer answered a request with `is_exception`; the text is the peer's."""
