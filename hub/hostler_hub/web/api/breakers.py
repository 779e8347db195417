"""The routes of breakers: which starts are paused after failures, and orders to try again."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from hostler_hub.web.api import problems
from hostler_hub.web.api.responses import Json
from hostler_hub.web.api.schemas import groups as schemas
from hostler_hub.web.api.security import GuardedRoute, Operator, Viewer
from hostler_hub.web.hub import HubPart

router = APIRouter(prefix="/api/v1/breakers", route_class=GuardedRoute, tags=["groups"])

MAX_DOMAINS = 1000
Domain = Annotated[str, Field(min_length=1, max_length=1000)]


class CloseBreakers(BaseModel):
    """Failure domains whose workers may be started again at once."""

    model_config = ConfigDict(extra="forbid")

    domains: Annotated[list[Domain], Field(max_length=MAX_DOMAINS)]


@router.get("", response_model=schemas.OpenBreakerList, responses=problems.responses())
async def list_open(hub: HubPart, caller: Viewer) -> Json:  # noqa: ARG001  # declares the role
    """Every failure domain whose starts are paused, and what to do."""
    return Json(hub.breakers.listing())


@router.post(
    "/close", response_model=schemas.CloseBreakerResults, responses=problems.responses(413)
)
async def close(body: CloseBreakers, hub: HubPart, caller: Operator) -> Json:
    """Closes breakers, so that workers are started again at once."""
    results = hub.breakers.close(body.domains, by=caller.name)
    return Json(schemas.CloseBreakerResults(results=results))
