"""Exceptions that transports raise.

TransportError
  Unreachable             no way to the machine now, or it was lost
  AuthenticationFailed    the credentials are not accepted, or there are none
  NotConfigured           the hub's own configuration gives no way to the machine
  HostKeyUnknown          the machine's key is not known yet
  HostKeyChanged          the machine has another key than it is known by
  Refused                 the machine answers, and will not do this
    NotWritten            it could not write a file
  TransportTimeout        the call's deadline has passed
  OutputTooLarge          the command printed more, or the file holds more, than the limit
"""

from __future__ import annotations


class TransportError(Exception):
    """A call to a machine failed. The text names the machine and the reason.

    `sent` tells whether the command may have reached the machine.
    """

    def __init__(self, text: str, *, sent: bool = False) -> None:
        # A machine or a file may have said anything; what is stored and shown is text.
        super().__init__(text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0"))
        self.sent = sent


class Unreachable(TransportError):
    """The machine cannot be reached, or the connection was lost. Trying later may help."""


class AuthenticationFailed(TransportError):
    """The machine does not accept the credentials, or the hub has none."""


class NotConfigured(TransportError):
    """The hub's own configuration of the transport's tool cannot be used for the machine."""


class HostKeyUnknown(TransportError):
    """The machine's host key is unknown, and may not be accepted at the first contact."""


class HostKeyChanged(TransportError):
    """The machine's host key differs from the known one; a person must decide (G2)."""


class Refused(TransportError):
    """The machine answers, and refuses the call."""


class NotWritten(Refused):
    """The machine could not write a file. `words` is the machine's message."""

    def __init__(self, address: str, words: str) -> None:
        super().__init__(f"{address}: cannot write {words}", sent=True)
        self.words = words


class TransportTimeout(TransportError):
    """The call's deadline has passed."""


class OutputTooLarge(TransportError):
    """The command printed, or the file holds, more than the limit."""
