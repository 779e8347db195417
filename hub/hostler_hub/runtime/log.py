"""The hub's log: JSON lines on stderr, each a constant message with fields.

`serve` writes to the terminal's stderr; a background hub's stderr is `hub.log`. Values that look
like tokens, or whose field is named like one, are masked. That is a second line of defence: the
code must not log secrets in the first place (V14).

What clients that nobody knows can cause as often as they like must not fill the disk: of lines with
the same message and ``client`` a few a minute are kept, and the next one says how many were not.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from hostler_hub.specs.printable import escape_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict, Processor, WrappedLogger

MASK = "[redacted]"
_PER_MINUTE = 10
_MINUTE_S = 60.0
_CLIENTS = 1000
_SECRET_FIELD = re.compile(
    r"token|secret|password|passwd|authorization|cookie|credential", re.IGNORECASE
)
# Our own tokens, HTTP credentials, and the password of a URL's user part.
_SECRET_TEXT = re.compile(
    r"hst_[a-z0-9]{12}_[A-Za-z0-9_-]{8,}"
    r"|(?<=Bearer )\S+|(?<=Basic )[A-Za-z0-9+/=]{8,}"
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
)

_NOISE = frozenset(
    {
        "ASGI callable returned without completing handshake.",
        "Invalid HTTP request received.",
        "Unsupported upgrade request.",
    }
)


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask token-like fields and texts at any depth (a structlog processor)."""
    return {key: _masked(key, value) for key, value in event.items()}


class Tally:
    """Counts an event that may happen thousands of times a second, for a log line now and then."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._logged_at: float | None = None
        self._count = 0

    def count(self) -> int:
        """Count the event. Returns 0, or, the first time and then at most once a minute, how often
        it has happened since the last time: the number for a line to log now.
        """
        self._count += 1
        now = self._monotonic()
        if self._logged_at is not None and now - self._logged_at < _MINUTE_S:
            return 0
        self._logged_at = now
        count, self._count = self._count, 0
        return count


@dataclass(slots=True)
class _Window:
    since: float
    kept: int = 0
    dropped: int = 0


class PerClientLimit:
    """Drops records with a field ``client`` beyond ten a minute of the same event and client (a
    structlog processor). The first record of a later minute has the number as ``not_logged``.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._windows: dict[tuple[str, str], _Window] = {}

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        if "client" not in event:
            return event
        key = (str(event.get("event")), str(event["client"]))
        now = self._monotonic()
        window = self._windows.pop(key, None)
        if window is None or now - window.since > _MINUTE_S:
            if window is not None and window.dropped:
                event["not_logged"] = window.dropped
            window = _Window(now)
            if len(self._windows) >= _CLIENTS:  # V15: the one not heard of for longest
                del self._windows[next(iter(self._windows))]
        self._windows[key] = window
        if window.kept >= _PER_MINUTE:
            window.dropped += 1
            raise structlog.DropEvent
        window.kept += 1
        return event


def configure(level: str) -> None:
    """Send the records of structlog and of the standard library through one chain to stderr."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            redact,
            structlog.processors.JSONRenderer(_json),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # They tell of themselves at each start, in words that are not constant.
    for chatty in ("alembic", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_no_noise)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            PerClientLimit(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _json(event: EventDict, **_: Any) -> str:
    """The event as JSON that no terminal obeys, whatever an agent has said in it."""
    return escape_json(json.dumps(event, ensure_ascii=False, default=str))


def _is_no_noise(record: logging.LogRecord) -> bool:
    """Whether to keep a record of the web server.

    The server reports a refused handshake as a handler's fault, and each request that it cancels at
    its own end as an error; the hub logs both itself. Of what is no HTTP anybody can send as much
    as they like.
    """
    error = record.exc_info[1] if record.exc_info else None
    return record.msg not in _NOISE and not isinstance(error, asyncio.CancelledError)


def _masked(key: str, value: Any) -> Any:
    if _SECRET_FIELD.search(key) and value is not None:
        return MASK
    if isinstance(value, str):
        return _SECRET_TEXT.sub(MASK, value)
    if isinstance(value, dict):
        return {inner: _masked(str(inner), each) for inner, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked("", each) for each in value]
    return value
