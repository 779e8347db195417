"""What stands around every request: headers, the body's limit, and the last resort.

Pure ASGI, because Starlette's BaseHTTPMiddleware costs a task and a queue per request and breaks
streaming and cancellation.
"""

import asyncio

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hostler_hub.errors import HeadersTooLarge, TooLarge, Unavailable
from hostler_hub.specs.step import FILE_SIZE_BYTES
from hostler_hub.web.api import problems

_log = structlog.get_logger(__name__)

HEADER_SIZE_BYTES = 16 * 1024
BODY_SIZE_BYTES = 1024 * 1024
BODY_SIZES_BYTES = {
    "/api/v1/workers/define": 8 * 1024 * 1024,
    "/api/v1/files": FILE_SIZE_BYTES,  # streamed to the disk
}

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
    """Sends an answer with our headers, and knows whether it has begun."""

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
    """Sets the headers of every answer, and answers what the application did not foresee."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
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
            _log.error("request failed", exc_info=error, method=scope["method"], path=scope["path"])
            if answer.started:
                raise  # the server cuts the connection, so that nobody takes a half for the whole
            await problems.internal()(scope, receive, answer)


def _headers_size_bytes(scope: Scope) -> int:
    # Each as it was sent, with ": " and the line's end.
    return sum(len(name) + len(value) + 4 for name, value in scope["headers"])


class BodyLimit:
    """Refuses bodies over the route's limit: by their announced length, else while they stream."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = BODY_SIZES_BYTES.get(scope["path"], BODY_SIZE_BYTES)
        detail = f"The body is larger than {limit} bytes"
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            await problems.response(TooLarge(detail))(scope, receive, send)
            return
        size = 0

        async def receive_within_limit() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                # The one kind that FastAPI's body reader passes on as it is.
                raise HTTPException(413, detail)
            return message

        await self._app(scope, receive_within_limit, send)
