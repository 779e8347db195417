"""Every refusal as application/problem+json (RFC 9457), and its place in the OpenAPI document.

No answer repeats what was sent: a body may hold passwords.
"""

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.websockets import WebSocket, WebSocketState

from hostler_hub.errors import HubError, InvalidRequest, NotFound, TooLarge, Unavailable
from hostler_hub.store.errors import StoreUnavailable
from hostler_hub.web.api.responses import Problem

_log = structlog.get_logger(__name__)
_SHOWN_ERRORS = 50
_RESOURCES = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE}


class ProblemError(BaseModel):
    """One place of the request that is wrong."""

    pointer: str = Field(description="JSON pointer (RFC 6901) into the body")
    detail: str


class ProblemDocument(BaseModel):
    """What every refusal looks like."""

    type: str
    title: str
    status: int
    detail: str
    pointer: str | None
    errors: list[ProblemError] = []


def response(error: HubError) -> Response:
    """The answer for a refusal."""
    return Problem(error.problem(), status_code=error.status, headers=error.headers())


def internal() -> Response:
    """The 500 answer for an unexpected exception, whose details are in the log only."""
    return response(HubError("The hub failed at this request; its log says more"))


def of_resources(error: Exception) -> HubError | None:
    """The refusal for an error of the hub's disk or descriptors, which no request can help; None
    for any other error.
    """
    if not isinstance(error, OSError) or error.errno not in _RESOURCES:
        return None
    detail = f"The hub cannot do this now: {os.strerror(error.errno).lower()}"
    return Unavailable(detail, retry_after_s=30)


def install(app: FastAPI, methods_at: Callable[[str], Sequence[str]]) -> None:
    """Makes `app` answer every refusal so. `methods_at` gives the methods of a path."""

    async def refuse(connection: HTTPConnection, error: Exception) -> Response:
        answer = _answer(connection, error, methods_at)
        if isinstance(connection, WebSocket):
            await _refuse_websocket(connection, answer)
        return answer

    for kind in (HubError, RequestValidationError, HTTPException, StoreUnavailable):
        app.add_exception_handler(kind, refuse)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries of a route's refusals; those that every guarded route has are added."""
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    # The listener answers by itself where even reading a request's head would cost too much.
    plain = {"text/plain": {"schema": {"type": "string"}}}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {**problem, **plain} if status == HTTPStatus(431) else problem,
        }
        for status in sorted({*statuses, 401, 403, 422, 429, 431, 500, 503})
    }


def document(schema: dict[str, Any]) -> None:
    """Adds the problem's schema to an OpenAPI document."""
    schemas = schema.setdefault("components", {}).setdefault("schemas", {})
    problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"))
    schemas["Problem"] = problem


def _answer(
    connection: HTTPConnection, error: Exception, methods_at: Callable[[str], Sequence[str]]
) -> Response:
    if isinstance(error, HubError):
        return response(error)
    if isinstance(error, RequestValidationError):
        return response(_invalid(error))
    if isinstance(error, StoreUnavailable):
        detail = f"The hub cannot do this now: {error.summary}"
        return response(Unavailable(detail, retry_after_s=5))
    assert isinstance(error, HTTPException)
    return _http(connection, error, methods_at)


def _http(
    connection: HTTPConnection, error: HTTPException, methods_at: Callable[[str], Sequence[str]]
) -> Response:
    if error.status_code == 400:  # the framework's word for a body that it cannot decode
        return response(InvalidRequest("The body is not JSON in UTF-8", pointer=""))
    if error.status_code == 404:
        return response(NotFound(f"There is nothing at {connection.url.path}"))
    if error.status_code == 413:
        return response(TooLarge(error.detail))
    phrase = HTTPStatus(error.status_code).phrase
    headers = dict(error.headers or {})
    detail = error.detail
    if error.status_code == 405:
        # The framework names only the methods of the first route that has the path.
        headers["Allow"] = ", ".join(methods_at(connection.url.path))
        detail = f"{connection.url.path} answers {headers['Allow']}"
    content = {
        "type": f"about:blank#{phrase.lower().replace(' ', '-')}",
        "title": phrase,
        "status": error.status_code,
        "detail": detail,
        "pointer": None,
    }
    return Problem(content, status_code=error.status_code, headers=headers)


def _invalid(error: RequestValidationError) -> HubError:
    found = error.errors()
    if any(each["loc"][:1] == ("path",) for each in found):
        return NotFound("There is nothing at this path")
    if isinstance(error.body, bytes):
        return InvalidRequest("The body must be sent as application/json", pointer="")
    places: dict[str, str] = {}
    outside: list[str] = []
    for each in found:
        # pydantic also says of a list with a wrong item that it is too short.
        if each["type"] == "too_short" and any(_beneath(other, each) for other in found):
            continue
        what = _sentence(each)
        if each["loc"][0] == "body":
            places.setdefault(_pointer(each, error.body), what)
        else:
            outside.append(f"{each['loc'][0]} {'.'.join(map(str, each['loc'][1:]))}: {what}")
    lines = outside + [f"{where or 'body'}: {what}" for where, what in places.items()]
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return InvalidRequest(
        lines[0] + more,
        pointer=next(iter(places), None),
        errors=tuple(places.items())[:_SHOWN_ERRORS],
    )


def _sentence(error: dict[str, Any]) -> str:
    words = {
        "missing": "is required",
        "extra_forbidden": "is not a known key",
        "json_invalid": "is not JSON",
    }
    message: str = error["msg"]
    message = message.replace("Tuple", "List").replace("tuple", "list")
    return words.get(error["type"], message[:1].lower() + message[1:])


def _pointer(error: dict[str, Any], body: Any) -> str:
    """Where in `body` an error lies. Names that are pydantic's own, not the body's, are skipped."""
    if error["type"] == "json_invalid":
        return ""
    parts: list[str] = []
    here = body
    last = len(error["loc"]) - 1
    for position, part in enumerate(error["loc"][1:], start=1):
        if _holds(here, part):
            here = here[part]
        elif error["type"] != "missing" or position != last:
            continue
        parts.append(str(part))
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def _beneath(error: dict[str, Any], other: dict[str, Any]) -> bool:
    depth = len(other["loc"])
    return len(error["loc"]) > depth and error["loc"][:depth] == other["loc"]


def _holds(container: Any, part: str | int) -> bool:
    if isinstance(container, list):
        return isinstance(part, int) and part < len(container)
    return isinstance(container, dict) and part in container


async def _refuse_websocket(websocket: WebSocket, answer: Response) -> None:
    if websocket.application_state is WebSocketState.CONNECTING:
        await websocket.send_denial_response(answer)
    elif websocket.application_state is WebSocketState.CONNECTED:
        await websocket.close(code=1011)


def methods_of(routes: Iterable[tuple[str, Iterable[str]]]) -> Callable[[str], Sequence[str]]:
    """A function that gives the methods of a path, from pairs of a path's template and methods."""
    table = [(compile_path(path)[0], frozenset(methods)) for path, methods in routes]

    def methods_at(path: str) -> Sequence[str]:
        return sorted({each for regex, methods in table if regex.match(path) for each in methods})

    return methods_at
