"""The open connections: how many there may be, and which of them ends if there are too many.

Theory of operation. A connection *waits* while the hub needs bytes of a client that has not
authenticated itself yet: a TLS handshake, a request's headers, its body. Waiting connections are
limited, in all and per client. If one more would exceed a limit, the newcomer is taken and another
one ends: the one that has waited longest, of the client that has most of them. So a client that
speaks at once is served, however many silent connections there are, from its own address or from
others (V19). All connections together are limited by the process's descriptors; if none of them
waits, the newcomer is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from hostler_hub.runtime.log import Tally

_log = structlog.get_logger(__name__)

# Of the descriptors that connections may use, the share that may wait.
_WAITING_SHARE = 2


@dataclass(frozen=True, slots=True)
class Caps:
    """The largest numbers of connections: all open ones, the waiting ones, and those of a client
    that wait.
    """

    open: int
    waiting: int
    waiting_per_client: int

    @classmethod
    def within(cls, descriptors: int, waiting: int, waiting_per_client: int) -> Caps:
        """The caps that were asked for, as far as the descriptors suffice."""
        waiting = max(1, min(waiting, descriptors // _WAITING_SHARE))
        return cls(descriptors, waiting, min(waiting_per_client, waiting))


@dataclass(eq=False, slots=True)
class Connection:
    """One connection of a client. ``end`` ends it at once."""

    client: str
    connections: Connections
    end: Callable[[], object] = lambda: None
    authenticated: bool = False

    def wait(self) -> None:
        """The hub needs bytes of the client now."""
        self.connections.note_waiting(self)

    def serve(self) -> None:
        """The hub needs nothing of the client now."""
        self.connections.note_served(self)

    def authenticate(self) -> None:
        """The client has proven who it is: the connection never waits any more."""
        self.authenticated = True
        self.connections.note_served(self)

    def remove(self) -> None:
        """The connection has ended. May be called twice."""
        self.connections.remove(self)


@dataclass(slots=True)
class Connections:
    """All open connections of a hub, over all its sockets."""

    caps: Caps
    monotonic: Callable[[], float] = time.monotonic
    _open: set[Connection] = field(default_factory=set)
    # By client, in the order in which they began to wait.
    _waiting: dict[str, dict[Connection, None]] = field(default_factory=dict)
    _waiting_count: int = 0
    _ended: Tally = field(init=False)
    _refused: Tally = field(init=False)

    def __post_init__(self) -> None:
        self._ended = Tally(self.monotonic)
        self._refused = Tally(self.monotonic)

    @property
    def open_count(self) -> int:
        return len(self._open)

    @property
    def waiting_count(self) -> int:
        return self._waiting_count

    def admit(self, client: str) -> Connection | None:
        """The client's new connection, which waits. None if it must be closed at once: all that the
        hub can have are in use.
        """
        if len(self._open) >= self.caps.open and not self.end_longest_waiting():
            if count := self._refused.count():
                _log.warning("connections refused", limit=self.caps.open, count=count)
            return None
        connection = Connection(client, self)
        self._open.add(connection)
        connection.wait()
        return connection

    def note_waiting(self, connection: Connection) -> None:
        if connection.authenticated or connection not in self._open:
            return
        waiting = self._waiting.setdefault(connection.client, {})
        if connection in waiting:
            return
        waiting[connection] = None
        self._waiting_count += 1
        if len(waiting) > self.caps.waiting_per_client:
            self._end_first_of(connection.client)
        elif self._waiting_count > self.caps.waiting:
            self.end_longest_waiting()

    def note_served(self, connection: Connection) -> None:
        waiting = self._waiting.get(connection.client, {})
        if connection in waiting:
            del waiting[connection]
            self._waiting_count -= 1
            if not waiting:
                del self._waiting[connection.client]

    def remove(self, connection: Connection) -> None:
        self.note_served(connection)
        self._open.discard(connection)

    def end_longest_waiting(self) -> bool:
        """End the connection that has waited longest, of the client that has most of those that
        wait. Returns False if none waits.
        """
        if not self._waiting:
            return False
        self._end_first_of(max(self._waiting, key=lambda client: len(self._waiting[client])))
        return True

    def _end_first_of(self, client: str) -> None:
        if count := self._ended.count():
            held = len(self._waiting[client])
            _log.warning("silent connections closed", client=client, open=held, count=count)
        first = next(iter(self._waiting[client]))
        self.remove(first)
        first.end()
