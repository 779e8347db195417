"""The middleware around every request: security headers, the headers' limit, and the last resort.

Pure ASGI, because Starlette's BaseHTTPMiddleware costs a task and a queue per request and breaks
streaming and cancellation.
"""

import asyncio

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hostler_hub.errors import HeadersTooLarge, Unavailable
from hostler_hub.web.api import problems

_log = structlog.get_logger(__name__)

HEADER_SIZE_BYTES = 16 * 1024

# U8, as far as it concerns an API that no page is made of.
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_HSTS = "max-age=31536000"


class _Answer:
    """Sends an answer with the security headers, and notes when it has begun."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._secure = scope["scheme"] == "https"
        self._send = send
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if self._secure:
                headers.setdefault("strict-transport-security", _HSTS)
        await self._send(message)


class SecurityHeaders:
    """Adds security headers to every answer; answers 431, 500 and 503 where no route could."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application; an exception after the answer began is raised to the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, send)
        try:
            # The server's own limit is only on headers that come in pieces.
            if _headers_size_bytes(scope) > HEADER_SIZE_BYTES:
                detail = f"The headers are larger than {HEADER_SIZE_BYTES} bytes"
                await problems.response(HeadersTooLarge(detail))(scope, receive, answer)
            else:
                await self._app(scope, receive, answer)
        except asyncio.CancelledError:
            # The server cancels what has not ended when the hub stops: a long poll, mostly.
            if not answer.started:
                refusal = Unavailable("The hub is stopping", retry_after_s=5)
                await problems.response(refusal)(scope, receive, answer)
            raise
        except Exception as error:  # the request's boundary: one must not end the hub
            lacking = problems.of_resources(error)
            if lacking is not None and not answer.started:
                _log.error("hub lacks a resource", reason=str(error), path=scope["path"])
                await problems.response(lacking)(scope, receive, answer)
                return
            _log.error("request failed", exc_info=error, method=scope["method"], path=scope["path"])
            if answer.started:
                raise  # the server cuts the connection, so that nobody takes a half for the whole
            await problems.internal()(scope, receive, answer)


def _headers_size_bytes(scope: Scope) -> int:
    # Each as it was sent, with ": " and the line's end.
    return sum(len(name) + len(value) + 4 for name, value in scope["headers"])
