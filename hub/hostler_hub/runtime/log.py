"""The hub's log: JSON lines on stderr, each a constant message with fields.

`serve` writes to the terminal's stderr; a background hub's stderr is `hub.log`. Values that look
like tokens, or whose field is named like one, are masked. That is a second line of defence: the
code must not log secrets in the first place (V14).
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

MASK = "[redacted]"
_SECRET_FIELD = re.compile(
    r"token|secret|password|passwd|authorization|cookie|credential", re.IGNORECASE
)
# Our own tokens, HTTP credentials, and the password of a URL's user part.
_SECRET_TEXT = re.compile(
    r"hst_[a-z0-9]{12}_[A-Za-z0-9_-]{8,}"
    r"|(?<=Bearer )\S+|(?<=Basic )[A-Za-z0-9+/=]{8,}"
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
)


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask token-like fields and texts at any depth (a structlog processor)."""
    return {key: _masked(key, value) for key, value in event.items()}


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
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
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
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _is_no_noise(record: logging.LogRecord) -> bool:
    """Whether to keep a record of the web server.

    The server reports a refused handshake as a handler's fault, and each request that it cancels at
    its own end as an error; the hub logs both itself.
    """
    error = record.exc_info[1] if record.exc_info else None
    refused = record.msg == "ASGI callable returned without completing handshake."
    return not refused and not isinstance(error, asyncio.CancelledError)


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
