"""The routes of the hub itself: health, the caller's role, counts, the OpenAPI document."""

from fastapi import APIRouter
from starlette.requests import Request

from hostler_hub import __version__
from hostler_hub.web.api import problems
from hostler_hub.web.api.responses import Json
from hostler_hub.web.api.schemas import system as schemas
from hostler_hub.web.api.security import PUBLIC, GuardedRoute, Viewer
from hostler_hub.web.hub import HubPart

router = APIRouter(route_class=GuardedRoute, tags=["hub"])


@router.get("/healthz", response_model=schemas.Health, dependencies=[PUBLIC])
async def health(hub: HubPart) -> Json:
    """Whether the hub answers; needs no token."""
    return Json(schemas.Health(status="ok", version=__version__, hub=hub.id))


@router.get("/api/v1/whoami", response_model=schemas.Whoami, responses=problems.responses())
async def whoami(caller: Viewer) -> Json:
    """The name and the role of the token that asks."""
    return Json(schemas.Whoami(name=caller.name, role=caller.role))


@router.get("/api/v1/status", response_model=schemas.Status, responses=problems.responses())
async def status(hub: HubPart, caller: Viewer) -> Json:  # noqa: ARG001  # declares the role
    """Counts of workers, builds and incidents."""
    return Json(
        schemas.Status(
            version=__version__,
            hub=hub.id,
            workers=hub.workers.counts(),
            builds=hub.supervisor.counts(),
            incidents=await hub.incidents.counts(),
        )
    )


@router.get("/api/v1/openapi.json", include_in_schema=False)
async def openapi(request: Request, caller: Viewer) -> Json:  # noqa: ARG001  # declares the role
    """This API as an OpenAPI document."""
    return Json(request.app.openapi())
