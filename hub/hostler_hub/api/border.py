"""What stands around every request: headers, the body's limit, and the last resort.

Pure ASGI, because Starlette's BaseHTTPMiddleware costs a task and a queue per request and breaks
streaming and cancellation.
"""

from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hostler_hub.api import problems
from hostler_hub.errors import TooLarge

_log = structlog.get_logger(__name__)

BODY_SIZE_BYTES = 1024 * 1024
BODY_SIZES_BYTES = {"/api/v1/workers/define": 8 * 1024 * 1024}

# Faults 3.4, as far as it concerns an API that no page is made of.
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_HSTS = "max-age=31536000"


class Border:
    """Sets the headers of every answer, and answers what the application did not foresee."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":
                    headers.setdefault("strict-transport-security", _HSTS)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:  # the request's boundary: one must not end the hub
            fields: dict[str, Any] = {"method": scope["method"], "path": scope["path"]}
            _log.error("request failed", exc_info=error, **fields)
            if started:
                raise  # the server cuts the connection, so that nobody takes a half for the whole
            await problems.internal()(scope, receive, send_with_headers)


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
