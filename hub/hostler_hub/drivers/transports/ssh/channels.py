"""Channels of paramiko whose messages reach the wire in the order in which they were decided.

paramiko decides under a channel's lock what to send, and sends it after it has released the lock.
So data or an EOF of one thread can follow the CLOSE with which paramiko's own thread answers the
server's, as happens when a command ends while its input is being sent. The server then ends the
whole connection ("packet referred to nonexistent channel"), and with it everything that other
calls and tunnels have on it (paramiko/paramiko#1115, RFC 4254 section 5.3).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import paramiko

# As often as paramiko itself looks, which does not tell of a broken connection.
_LOOK_S = 0.1


class OrderedChannel(paramiko.Channel):  # type: ignore[misc] # it has no types
    """A channel that sends neither data nor EOF after its CLOSE."""

    def shutdown(self, how: int) -> None:
        """Shut down one or both directions; as paramiko does, but in order."""
        if how in (0, 2):
            self.eof_received = True
        if how in (1, 2):
            with self._turn() as is_open:
                message = self._send_eof() if is_open else None
                if message is not None:
                    self.transport._send_message(message)  # noqa: SLF001 - this class is a part

    def _send(self, data: bytes, message: Any) -> int:
        with self.lock:
            if self.closed:
                raise OSError("Socket is closed")
            # It may wait for the server, so this part must not hold the connection.
            size: int = self._wait_for_send_window(len(data))
        if size == 0:
            return 0
        message.add_string(data[:size])
        with self._turn() as is_open:
            if not is_open:
                raise OSError("Socket is closed")
            self.transport._send_message(message)  # noqa: SLF001 - this class is a part
        return size

    @contextlib.contextmanager
    def _turn(self) -> Iterator[bool]:
        """Hold the connection's turn to send, then the channel's lock; yield whether the channel is
        open.

        In this order, since paramiko's thread takes the channel's lock while a key exchange holds
        up all senders.
        """
        transport = self.transport
        deadline = time.monotonic() + transport.clear_to_send_timeout
        while True:
            transport.clear_to_send.wait(_LOOK_S)
            if not transport.active:
                raise OSError("Socket is closed")
            if time.monotonic() > deadline:
                raise paramiko.SSHException("timed out waiting for a key exchange")
            with transport.clear_to_send_lock:
                if transport.clear_to_send.is_set():
                    with self.lock:
                        yield not self.closed
                    return


def in_order(channel: paramiko.Channel) -> OrderedChannel:
    """Make a channel on which nothing has been sent yet an ordered one. paramiko creates its
    channels itself, and takes no class of ours for them.
    """
    channel.__class__ = OrderedChannel
    return channel  # type: ignore[no-any-return] # it is one now
