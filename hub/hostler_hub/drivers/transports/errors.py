"""What transports raise.

TransportError
  Unreachable             no way to the machine now, or it was lost
  AuthenticationFailed    the credentials are not accepted, or there are none
  HostKeyUnknown          the machine's key is not known yet
  HostKeyChanged          the machine has another key than it is known by
  Refused                 the machine answers, and will not do this
    NotWritten            it could not write a file
  TransportTimeout        the call's deadline has passed
  OutputTooLarge          the command printed more, or the file holds more, than the limit
"""

from __future__ import annotations


class TransportError(Exception):
    """The text names the machine, and has the words of whoever refused.

    `sent` tells whether the command may have reached the machine.
    """

    def __init__(self, text: str, *, sent: bool = False) -> None:
        super().__init__(text)
        self.sent = sent


class Unreachable(TransportError):
    """There is no way to the machine now, or it was lost. Trying later may help."""


class AuthenticationFailed(TransportError):
    """The machine does not take these credentials, or we have not got them."""


class HostKeyUnknown(TransportError):
    """First contact, and nobody has said what the machine's key is."""


class HostKeyChanged(TransportError):
    """The machine has not the key it is known by: never accepted, a person must look (G2)."""


class Refused(TransportError):
    """The machine answers, and will not do this."""


class NotWritten(Refused):
    """It began to write a file and could not; its disk may be full. `words` are its own."""

    def __init__(self, address: str, words: str) -> None:
        super().__init__(f"{address}: cannot write {words} (is the disk full?)", sent=True)
        self.words = words


class TransportTimeout(TransportError):
    """The deadline has passed."""


class OutputTooLarge(TransportError):
    """The command printed, or the file holds, more than the limit."""
