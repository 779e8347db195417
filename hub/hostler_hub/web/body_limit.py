"""The middleware that bounds the size of request bodies, by route (U4)."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hostler_hub.errors import TooLarge
from hostler_hub.specs.step import FILE_SIZE_BYTES
from hostler_hub.web.api import problems

BODY_SIZE_BYTES = 1024 * 1024
BODY_SIZES_BYTES = {
    "/api/v1/workers/define": 8 * 1024 * 1024,
    "/api/v1/files": FILE_SIZE_BYTES,  # streamed to the disk
}


class BodyLimit:
    """Refuses bodies over the route's limit: by their Content-Length, else while they stream."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application behind it with a bounded body, or answer 413."""
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
