"""A conversation over one connection: requests out and in, and the answers matched to them.

Theory of operation. Each side numbers its own requests (`seq_number`), and each request gets one
response with the same number, in any order. The two numberings are independent. The session keeps
the tokens of our own unanswered requests, and the numbers of the peer's that we have not answered;
it knows neither sockets nor time: the caller moves the frames, sets deadlines, and says when the
connection is gone.

What a peer can do wrong falls into three classes:

- a request that we do not know or cannot read is *rejected*: it is answered with an error and the
  conversation goes on (receive returns Rejected with the frame to send); so is one with a number
  that nobody can store. A response with such a number counts as a failure of our request;
- a response to nothing is ignored: the request may have been given up at its deadline. (Buildbot's
  own peers raise KeyError here and lose the connection);
- a frame that is no message at all raises: the caller closes the connection (1002, or 1009 for
  LimitExceeded).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Union

from hostler_agent.wire import codec
from hostler_agent.wire.errors import (
    LimitExceeded,
    ProtocolError,
    RemoteError,
    TooManyInFlight,
    ValueRefused,
)
from hostler_agent.wire.fields import INTEGER, TEXT, take
from hostler_agent.wire.limits import TO_AGENT, TO_HUB, MessageLimits
from hostler_agent.wire.messages import (
    AGENT_OPERATIONS,
    HUB_OPERATIONS,
    RESPONSE,
    Message,
    Packed,
    Response,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


class Role(enum.Enum):
    """The end of the conversation that a session is for."""

    AGENT = "agent"
    HUB = "hub"


MAX_SEQ_NUMBER = 2**63 - 1

OPERATIONS: Mapping[Role, Mapping[str, type[Message]]] = {
    Role.AGENT: HUB_OPERATIONS,
    Role.HUB: AGENT_OPERATIONS,
}
"""The operations that the peer may send, by our own role."""

_RECEIVES = {Role.AGENT: TO_AGENT, Role.HUB: TO_HUB}
_SENDS = {Role.AGENT: TO_HUB, Role.HUB: TO_AGENT}


@dataclass(frozen=True)
class Requested:
    """The peer sent a request: call answer(seq_number) or refuse(seq_number), exactly once."""

    seq_number: int
    message: Message


@dataclass(frozen=True)
class Answered:
    """The request with this token succeeded."""

    token: object
    result: Any


@dataclass(frozen=True)
class Failed:
    """The peer answered the request with this token by an error."""

    token: object
    error: RemoteError


@dataclass(frozen=True)
class Rejected:
    """The peer's request was unusable: send the frame; nothing else is to be done."""

    frame: bytes
    error: ProtocolError


Event = Union[Requested, Answered, Failed, Rejected]


class Session:
    """The state of one conversation; a new connection needs a new one."""

    def __init__(
        self,
        role: Role,
        limits: Optional[MessageLimits] = None,
        peer_limits: Optional[MessageLimits] = None,
    ) -> None:
        """`limits` are our own limits, `peer_limits` those of the peer; see `limits`."""
        self._operations = OPERATIONS[role]
        self._limits = limits or _RECEIVES[role]
        self._peer_limits = peer_limits or _SENDS[role]
        self._tokens: dict[int, object] = {}
        self._unanswered: set[int] = set()
        self._last_seq_number = 0

    @property
    def in_flight(self) -> int:
        """The number of our own requests without an answer."""
        return len(self._tokens)

    @property
    def unanswered(self) -> int:
        """The number of the peer's requests that we have not answered.

        Buildbot's worker does not wait for answers, so many requests at once are not an error of
        the peer: the caller stops reading the socket while this is at the limit.
        """
        return len(self._unanswered)

    def request(self, message: Message | Packed, token: object) -> bytes:
        """Encode `message` as a request; the answer will carry `token`. Returns the frame.

        Raises TooManyInFlight, LimitExceeded (too large for the peer) and ProtocolError (cannot be
        encoded). In these cases nothing has changed.
        """
        if len(self._tokens) >= self._peer_limits.in_flight:
            raise TooManyInFlight(f"{len(self._tokens)} requests are unanswered")
        seq_number = self._last_seq_number + 1
        head = {"op": message.op, "seq_number": seq_number}
        if isinstance(message, Packed):
            frame = self._checked(codec.joined(head, message.encoded))
        else:
            frame = self._frame({**head, **message.body()})
        self._last_seq_number = seq_number
        self._tokens[seq_number] = token
        return frame

    def answer(self, seq_number: int, result: Any = None) -> bytes:
        """Encode the answer to a request. Raises the same exceptions as request(); the request may
        then be refused.
        """
        frame = self._frame(Response(seq_number, result).body())
        self._unanswered.discard(seq_number)
        return frame

    def refuse(self, seq_number: int, reason: str) -> bytes:
        """Encode an error as the answer to a request. Returns the frame."""
        self._unanswered.discard(seq_number)
        return self._frame(Response(seq_number, _transmissible(reason), is_exception=True).body())

    def abandon(self, token: object) -> None:
        """Stop waiting for the answer to this token's request (its deadline has passed)."""
        for seq_number, waiting in list(self._tokens.items()):
            if waiting is token:
                del self._tokens[seq_number]

    def receive(self, frame: bytes) -> Optional[Event]:
        """Decode a frame of the peer. Returns None for a response to an unknown or abandoned
        request.

        Raises ProtocolError or LimitExceeded if the conversation cannot go on.
        """
        refusal = None
        try:
            mapping = codec.decode(frame, self._limits)
        except ValueRefused as error:
            mapping, refusal = error.message, error
        seq_number = take("message", mapping, "seq_number", INTEGER)
        if not -MAX_SEQ_NUMBER <= seq_number <= MAX_SEQ_NUMBER:
            raise ProtocolError("message: key 'seq_number' has more than 64 bits")
        op = take("message", mapping, "op", TEXT)
        if op == RESPONSE:
            return self._receive_response(Response.parse(seq_number, mapping), refusal)
        return self._receive_request(op, seq_number, mapping, refusal)

    def lose(self) -> list[object]:
        """Forget all requests; return the tokens of our own unanswered ones. Called when the
        connection is gone.
        """
        tokens = list(self._tokens.values())
        self._tokens.clear()
        self._unanswered.clear()
        return tokens

    def _receive_response(
        self, response: Response, refusal: Optional[ValueRefused]
    ) -> Optional[Event]:
        if response.seq_number not in self._tokens:
            return None
        token = self._tokens.pop(response.seq_number)
        if refusal is not None:
            return Failed(token, RemoteError(f"its answer cannot be taken: {refusal}"))
        if response.is_exception:
            return Failed(token, RemoteError(_transmissible(str(response.result))))
        return Answered(token, response.result)

    def _receive_request(
        self, op: str, seq_number: int, mapping: dict[str, Any], refusal: Optional[ValueRefused]
    ) -> Event:
        if seq_number in self._unanswered:
            raise ProtocolError(f"{op}: seq_number {seq_number} is used by an unanswered request")
        try:
            if refusal is not None:
                raise refusal
            message = self._parse(op, mapping)
        except ProtocolError as error:
            return Rejected(self.refuse(seq_number, str(error)), error)
        self._unanswered.add(seq_number)
        return Requested(seq_number, message)

    def _parse(self, op: str, mapping: dict[str, Any]) -> Message:
        operation = self._operations.get(op)
        if operation is None:
            raise ProtocolError(f"operation {op[:100]!r} does not exist")
        return operation.parse(mapping)

    def _frame(self, mapping: dict[str, Any]) -> bytes:
        return self._checked(codec.encode(mapping))

    def _checked(self, frame: bytes) -> bytes:
        limit = self._peer_limits.message_size_bytes
        if len(frame) > limit:
            raise LimitExceeded(f"message of {len(frame)} bytes is over the peer's limit {limit}")
        return frame


def _transmissible(reason: str) -> str:
    """Make an error's text fit to be sent: short, and without the lone surrogates of file names."""
    return reason[:4096].encode("utf-8", "replace").decode()
