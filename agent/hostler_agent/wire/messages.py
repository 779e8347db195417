"""The operations of Buildbot's worker protocol, one frozen dataclass each.

Source: "Master-Worker connection with MessagePack over WebSocket protocol" in Buildbot's
developer documentation (msgpack_experimental_v7). A message on the wire is a map with `op` and
`seq_number` beside the keys listed here. Keys that we do not know are ignored, as Buildbot sends
some that its own documentation does not name (`builder_name`); a key that is missing, or holds
another kind of value than documented, is a ProtocolError that names operation and key.

Which operations a peer may send depends on its side, and the two tables at the end are all there
is: nothing outside them can be called.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from hostler_agent.wire import codec
from hostler_agent.wire.fields import (
    ANY,
    BYTES,
    DURATION,
    LENGTH,
    MAP,
    NUMBER,
    PAIRS,
    POSITIVE,
    TEXT,
    Keys,
    nullable,
    optional,
    take,
    take_map,
)
from hostler_agent.wire.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

RESPONSE = "response"


@dataclass(frozen=True, eq=False, repr=False)
class Message(Record):
    """Base of requests. `op` is the request's name on the wire; `keys` are its other keys, with
    types.
    """

    op: ClassVar[str]
    keys: ClassVar[Keys] = {}

    @classmethod
    def parse(cls, mapping: Mapping[str, Any]) -> Message:
        """Parse the message in `mapping`. Raises ProtocolError."""
        return cls(**take_map(cls.op, mapping, cls.keys))

    def body(self) -> dict[str, Any]:
        """The map to send, without `op` and `seq_number`."""
        return dict(self.__dict__)  # fields() would be half the cost of a small message


# ---- from the hub (Buildbot: master) to the agent (worker)


@dataclass(frozen=True, eq=False, repr=False)
class Print(Message):
    """Write a line to the agent's log."""

    op = "print"
    keys: ClassVar[Keys] = {"message": TEXT}
    message: str


@dataclass(frozen=True, eq=False, repr=False)
class Keepalive(Message):
    """Check that the connection is alive. The answer is null."""

    op = "keepalive"


@dataclass(frozen=True, eq=False, repr=False)
class GetWorkerInfo(Message):
    """Ask for the worker's properties and abilities. The answer is a map."""

    op = "get_worker_info"


@dataclass(frozen=True, eq=False, repr=False)
class SetWorkerSettings(Message):
    """Set how output is cut and buffered. Sent before the first command.

    `buffer_size` in bytes, `buffer_timeout` in seconds, `max_line_length` in characters with the
    newline; `newline_re` matches what stands for a newline. On the wire all of them stand in
    `args`. `hostler` is there when the hub is ours (see extension.HubSettings).
    """

    op = "set_worker_settings"
    keys: ClassVar[Keys] = {"args": MAP}
    settings: ClassVar[Keys] = {
        "buffer_size": POSITIVE,
        "buffer_timeout": DURATION,
        "newline_re": TEXT,
        "max_line_length": POSITIVE,
        "hostler": optional(MAP),
    }
    buffer_size: int
    buffer_timeout: float
    newline_re: str
    max_line_length: int
    hostler: Optional[dict[str, Any]] = None

    @classmethod
    def parse(cls, mapping: Mapping[str, Any]) -> SetWorkerSettings:
        args = take_map(cls.op, mapping, cls.keys)["args"]
        return cls(**take_map(f"{cls.op}.args", args, cls.settings))

    def body(self) -> dict[str, Any]:
        args = super().body()
        if self.hostler is None:
            del args["hostler"]
        return {"args": args}


@dataclass(frozen=True, eq=False, repr=False)
class StartCommand(Message):
    """Start a command; its updates and its completion carry the same `command_id`."""

    op = "start_command"
    keys: ClassVar[Keys] = {"command_id": TEXT, "command_name": TEXT, "args": MAP}
    command_id: str
    command_name: str
    args: dict[str, Any]


@dataclass(frozen=True, eq=False, repr=False)
class InterruptCommand(Message):
    """Stop a command early. It still completes."""

    op = "interrupt_command"
    keys: ClassVar[Keys] = {"command_id": TEXT, "why": TEXT}
    command_id: str
    why: str


@dataclass(frozen=True, eq=False, repr=False)
class Shutdown(Message):
    """Tell the agent to go away. It answers at once and then ends."""

    op = "shutdown"


# ---- from the agent to the hub


@dataclass(frozen=True, eq=False, repr=False)
class Update(Message):
    """Report on a running command: `args` is a list of `[name, value]` pairs."""

    op = "update"
    keys: ClassVar[Keys] = {"command_id": TEXT, "args": PAIRS}
    command_id: str
    args: list[list[Any]]


@dataclass(frozen=True, eq=False, repr=False)
class Complete(Message):
    """Report that a command has ended; `args` is null, or the reason why it could not be run."""

    op = "complete"
    keys: ClassVar[Keys] = {"command_id": TEXT, "args": nullable(TEXT)}
    command_id: str
    args: Optional[str] = None


@dataclass(frozen=True, eq=False, repr=False)
class UpdateUploadFileWrite(Message):
    """The next chunk of a file on its way to the hub."""

    op = "update_upload_file_write"
    keys: ClassVar[Keys] = {"command_id": TEXT, "args": BYTES}
    command_id: str
    args: bytes


@dataclass(frozen=True, eq=False, repr=False)
class UpdateUploadFileClose(Message):
    """Report that there are no more chunks of the file."""

    op = "update_upload_file_close"
    keys: ClassVar[Keys] = {"command_id": TEXT}
    command_id: str


@dataclass(frozen=True, eq=False, repr=False)
class UpdateUploadFileUtime(Message):
    """Report when the file was last read and changed, in seconds since 1970."""

    op = "update_upload_file_utime"
    keys: ClassVar[Keys] = {"command_id": TEXT, "access_time": NUMBER, "modified_time": NUMBER}
    command_id: str
    access_time: float
    modified_time: float


@dataclass(frozen=True, eq=False, repr=False)
class UpdateReadFile(Message):
    """Ask for the next chunk of a file, of at most `length` bytes; the answer is bytes."""

    op = "update_read_file"
    keys: ClassVar[Keys] = {"command_id": TEXT, "length": LENGTH}
    command_id: str
    length: int


@dataclass(frozen=True, eq=False, repr=False)
class UpdateReadFileClose(Message):
    """Report that the agent wants no more of the file."""

    op = "update_read_file_close"
    keys: ClassVar[Keys] = {"command_id": TEXT}
    command_id: str


@dataclass(frozen=True, eq=False, repr=False)
class UpdateUploadDirectoryWrite(Message):
    """The next chunk of a directory's tarball."""

    op = "update_upload_directory_write"
    keys: ClassVar[Keys] = {"command_id": TEXT, "args": BYTES}
    command_id: str
    args: bytes


@dataclass(frozen=True, eq=False, repr=False)
class UpdateUploadDirectoryUnpack(Message):
    """Report that the tarball is complete and is to be unpacked."""

    op = "update_upload_directory_unpack"
    keys: ClassVar[Keys] = {"command_id": TEXT}
    command_id: str


# ---- both ways


@dataclass(frozen=True, eq=False, repr=False)
class Response(Record):
    """The answer to the request with this `seq_number`.

    Buildbot's peers test `is_exception` for presence, so it is sent only when true; a peer that
    sends it as false means a success.
    """

    seq_number: int
    result: Any = None
    is_exception: bool = False

    @classmethod
    def parse(cls, seq_number: int, mapping: Mapping[str, Any]) -> Response:
        result = take(RESPONSE, mapping, "result", ANY)
        return cls(seq_number, result, bool(mapping.get("is_exception", False)))

    def body(self) -> dict[str, Any]:
        body = {"op": RESPONSE, "seq_number": self.seq_number, "result": self.result}
        if self.is_exception:
            body["is_exception"] = True
        return body


class Packed:
    """A command's message that is already encoded: it may be sent several times, and takes less
    memory.
    """

    def __init__(self, message: Update | Complete) -> None:
        """Encode the message. Raises ProtocolError for a value that MessagePack cannot carry."""
        self.op = message.op
        self.command_id = message.command_id
        self.encoded = codec.encode(message.body())


def _by_op(*classes: type[Message]) -> dict[str, type[Message]]:
    return {cls.op: cls for cls in classes}


HUB_OPERATIONS = _by_op(
    Print,
    Keepalive,
    GetWorkerInfo,
    SetWorkerSettings,
    StartCommand,
    InterruptCommand,
    Shutdown,
)
"""The operations that a hub may send to an agent."""

AGENT_OPERATIONS = _by_op(
    Update,
    Complete,
    UpdateUploadFileWrite,
    UpdateUploadFileClose,
    UpdateUploadFileUtime,
    UpdateReadFile,
    UpdateReadFileClose,
    UpdateUploadDirectoryWrite,
    UpdateUploadDirectoryUnpack,
)
"""The operations that an agent may send to a hub."""
