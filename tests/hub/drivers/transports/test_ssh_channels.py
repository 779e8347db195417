"""What is sent on a channel, and in which order, when the other side closes it meanwhile."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import paramiko
import pytest
from paramiko.common import cMSG_CHANNEL_CLOSE, cMSG_CHANNEL_DATA, cMSG_CHANNEL_EOF

from hostler_hub.drivers.transports.ssh.channels import in_order

CLOSE, DATA, EOF = cMSG_CHANNEL_CLOSE, cMSG_CHANNEL_DATA, cMSG_CHANNEL_EOF


class Interrupted(threading.Event):
    """An event at which another thread gets its turn, once, before a message is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.set()
        self.meanwhile: Callable[[], None] | None = None

    def wait(self, timeout: float | None = None) -> bool:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().wait(timeout)


class Connection:
    """paramiko's connection, with an open channel, that notes what it would send."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.sent: list[bytes] = []
        self.transport: Any = paramiko.Transport(self.ours)
        self.transport.active = True
        self.transport.clear_to_send = Interrupted()
        self.transport._send_message = lambda message: self.sent.append(message.asbytes()[:1])
        self.plain = paramiko.Channel(1)
        self.plain._set_transport(self.transport)
        self.plain._set_window(1 << 20, 1 << 15)
        self.plain._set_remote_channel(5, 1 << 20, 1 << 15)
        self.plain.active = True

    def close_meanwhile(self) -> None:
        """The server's CLOSE arrives just before the next message is sent."""
        self.transport.clear_to_send.meanwhile = lambda: self.plain._handle_close(None)


@pytest.fixture
def connection() -> Iterator[Connection]:
    made = Connection()
    yield made
    made.transport.active = False
    made.ours.close()
    made.theirs.close()


def test_paramiko_s_own_channels_do_send_after_their_CLOSE(connection: Connection) -> None:
    """If this fails, paramiko has been mended, and ordered channels are needed no more."""
    connection.close_meanwhile()
    connection.plain.shutdown_write()
    assert connection.sent == [CLOSE, EOF]


def test_no_EOF_follows_a_channel_s_CLOSE(connection: Connection) -> None:
    channel = in_order(connection.plain)
    connection.close_meanwhile()
    channel.shutdown_write()
    assert connection.sent == [EOF, CLOSE]


def test_no_data_follow_a_channel_s_CLOSE(connection: Connection) -> None:
    channel = in_order(connection.plain)
    connection.close_meanwhile()
    with pytest.raises(OSError, match="closed"):
        channel.sendall(b"more")
    assert connection.sent == [EOF, CLOSE]


def test_what_is_sent_in_time_goes_first(connection: Connection) -> None:
    channel = in_order(connection.plain)
    channel.sendall(b"x" * 40_000)
    channel.shutdown_write()
    channel.shutdown_write()
    connection.plain._handle_close(None)
    assert connection.sent == [DATA, DATA, EOF, CLOSE]
    with pytest.raises(OSError, match="closed"):
        channel.sendall(b"more")


def test_a_sender_waits_for_a_key_exchange_without_the_channel_s_lock(
    connection: Connection,
) -> None:
    """paramiko's own thread needs it to get on with the exchange."""
    channel = in_order(connection.plain)
    connection.transport.clear_to_send = threading.Event()
    sending = threading.Thread(target=channel.sendall, args=(b"later",), daemon=True)
    sending.start()
    assert channel.lock.acquire(timeout=60)
    channel.lock.release()
    connection.transport.clear_to_send.set()
    sending.join(60)
    assert connection.sent == [DATA]


def test_a_sender_ends_with_the_connection(connection: Connection) -> None:
    channel = in_order(connection.plain)
    connection.transport.clear_to_send = threading.Event()
    connection.transport.active = False
    with pytest.raises(OSError, match="closed"):
        channel.sendall(b"never")
    assert connection.sent == []
