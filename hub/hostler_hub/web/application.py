"""The ASGI application: the routers, their guards, the middleware, around a hub made elsewhere."""

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, APIWebSocketRoute

from hostler_hub import __version__
from hostler_hub.web.api import (
    agents,
    archive,
    artifacts,
    breakers,
    builds,
    decisions,
    groups,
    incidents,
    leases,
    problems,
    reconcile,
    refusals,
    security,
    system,
    tokens,
    workers,
)
from hostler_hub.web.body_limit import BodyLimit
from hostler_hub.web.page import orders as page_orders
from hostler_hub.web.page import routes as page_routes
from hostler_hub.web.page.sessions import Sessions
from hostler_hub.web.security_headers import SecurityHeaders

ROUTERS: tuple[APIRouter, ...] = (
    system.router,
    reconcile.router,
    refusals.router,
    workers.router,
    builds.router,
    decisions.router,
    groups.router,
    breakers.router,
    artifacts.router,
    leases.router,
    tokens.router,
    agents.router,
    archive.router,
    incidents.router,
    page_routes.router,
    page_orders.router,
)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create(lifespan: Lifespan) -> FastAPI:
    """The application. `lifespan` must set `app.state.hub` before it yields."""
    # The framework's own document routes have no role and its pages load scripts from elsewhere.
    app = FastAPI(
        title="Hostler hub",
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.sessions = Sessions(time.monotonic)
    for router in ROUTERS:
        app.include_router(router)
    problems.install(app, problems.methods_of(_http_routes()))
    app.add_middleware(BodyLimit)
    app.add_middleware(SecurityHeaders)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def routes() -> Iterable[APIRoute | APIWebSocketRoute]:
    """Every route; raises TypeError for one that declares nobody who may call it."""
    for router in ROUTERS:
        for route in router.routes:
            if not isinstance(route, (APIRoute, APIWebSocketRoute)):
                raise TypeError(f"{route} is a kind of route that cannot declare a role")
            if security.declared(route.dependant) is None:
                raise TypeError(f"{route.path} declares no role")
            yield route


def _http_routes() -> Iterable[tuple[str, Iterable[str]]]:
    return [(route.path, route.methods or ()) for route in routes() if isinstance(route, APIRoute)]


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        problems.document(app.openapi_schema)
    return app.openapi_schema
