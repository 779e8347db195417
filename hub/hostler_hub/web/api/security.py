"""Who may call which route. Deny by default: a route that declares nobody cannot be made.

A handler declares its role by a parameter (`caller: Operator`). The check runs before the body is
read, so that strangers cannot make the hub read and parse theirs. Cookies open nothing.
"""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import structlog
from fastapi import Depends
from fastapi.dependencies.models import Dependant
from fastapi.openapi.models import HTTPBearer
from fastapi.routing import APIRoute
from fastapi.security.base import SecurityBase
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from hostler_hub.errors import Forbidden, TooManyAttempts, Unauthenticated
from hostler_hub.specs.caller import Caller, Role
from hostler_hub.web.hub import Hub
from hostler_hub.web.listener.http import note_authenticated

_log = structlog.get_logger(__name__)


class Require(SecurityBase):
    """A route's declaration of the smallest role that may call it."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.model = HTTPBearer(description="An API token: `Authorization: Bearer hst_...`")
        self.scheme_name = "token"

    async def admit(self, request: Request) -> None:
        """Notes the caller on the request. Raises Unauthenticated, Forbidden, TooManyAttempts."""
        hub: Hub = request.app.state.hub
        client = request.client.host if request.client else ""
        try:
            caller = await hub.tokens.verify(_bearer(request), client)
        except (Unauthenticated, TooManyAttempts) as refusal:
            _log.warning("token refused", client=client, path=request.url.path, why=refusal.slug)
            raise
        if not caller.role.covers(self.role):
            raise Forbidden(
                f"This needs the role {self.role}; the token {caller.name} has {caller.role}"
            )
        note_authenticated(request.scope)
        request.state.caller = caller

    async def __call__(self, request: Request) -> Caller:
        """The caller that `admit` noted."""
        caller: Caller = request.state.caller
        return caller


class Public:
    """The declaration of a route that anybody may call."""

    async def admit(self, request: Request) -> None:
        """Lets everybody in."""

    async def __call__(self) -> None:
        """There is nothing to know about the caller."""


class AgentsOnly:
    """The declaration of a WebSocket route: `Agents.serve` authenticates its handshake."""

    async def __call__(self, websocket: WebSocket) -> None:
        """Nothing to do here; API tokens open no such route."""


PUBLIC = Depends(Public())
AGENTS_ONLY = Depends(AgentsOnly())
Viewer = Annotated[Caller, Depends(Require(Role.VIEWER))]
Submitter = Annotated[Caller, Depends(Require(Role.SUBMITTER))]
Operator = Annotated[Caller, Depends(Require(Role.OPERATOR))]
Admin = Annotated[Caller, Depends(Require(Role.ADMIN))]


def declared(dependant: Dependant) -> Require | Public | AgentsOnly | None:
    """What a route declares, or None."""
    for each in dependant.dependencies:
        if isinstance(each.call, (Require, Public, AgentsOnly)):
            return each.call
    return None


class GuardedRoute(APIRoute):
    """A route that asks for the caller's role before it touches the body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler behind the guard."""
        handler = super().get_route_handler()
        guard = declared(self.dependant)
        if not isinstance(guard, (Require, Public)):
            raise TypeError(f"{self.path} declares no role")

        async def guarded(request: Request) -> Response:
            await guard.admit(request)
            return await handler(request)

        return guarded


def _bearer(request: Request) -> str:
    values = request.headers.getlist("authorization")
    if not values:
        raise Unauthenticated("Send a token: Authorization: Bearer hst_...")
    scheme, _, token = values[0].partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer":
        raise Unauthenticated("Send one Authorization header with the scheme Bearer")
    return token.strip()
