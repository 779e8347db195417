"""The routes of the hub itself: health, readiness, the caller's role, counts, the OpenAPI
document.
"""

from fastapi import APIRouter
from starlette.requests import Request

from hostler_hub import __version__
from hostler_hub.web.api import problems
from hostler_hub.web.api.responses import Json
from hostler_hub.web.api.schemas import system as schemas
from hostler_hub.web.api.security import PUBLIC, RETRY_AFTER_S, GuardedRoute, Viewer
from hostler_hub.web.hub import HubPart

router = APIRouter(route_class=GuardedRoute, tags=["hub"])


@router.get("/healthz", response_model=schemas.Health, dependencies=[PUBLIC])
async def health(hub: HubPart) -> Json:
    """Whether the hub's process lives and answers; needs no token."""
    return Json(schemas.Health(status="ok", version=__version__, hub=hub.id))


@router.get(
    "/readyz",
    response_model=schemas.Ready,
    responses={503: {"description": "It cannot, and why", "model": schemas.NotReady}},
    dependencies=[PUBLIC],
)
async def ready(hub: HubPart) -> Json:
    """Whether the hub can accept builds now and keep them; needs no token."""
    reason = await hub.readiness.why_not()
    if reason is None:
        return Json(schemas.Ready(status="ready"))
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return Json(schemas.NotReady(status="not ready", reason=reason), 503, headers)


@router.get("/api/v1/whoami", response_model=schemas.Whoami, responses=problems.responses())
async def whoami(caller: Viewer) -> Json:
    """The name and the role of the token that asks."""
    return Json(schemas.Whoami(name=caller.name, role=caller.role))


@router.get("/api/v1/status", response_model=schemas.Status, responses=problems.responses())
async def status(hub: HubPart, caller: Viewer) -> Json:  # noqa: ARG001  # declares the role
    """Counts of workers, builds and incidents, and what is used of the disk."""
    return Json(
        schemas.Status(
            version=__version__,
            hub=hub.id,
            hold=hub.hold.reason,
            not_ready=await hub.readiness.why_not(),
            workers=hub.workers.counts(),
            builds=hub.supervisor.counts(),
            incidents=await hub.incidents.counts(),
            storage=hub.exchange.quotas.view(),
        )
    )


@router.get("/api/v1/openapi.json", include_in_schema=False)
async def openapi(request: Request, caller: Viewer) -> Json:  # noqa: ARG001  # declares the role
    """This API as an OpenAPI document."""
    return Json(request.app.openapi())
