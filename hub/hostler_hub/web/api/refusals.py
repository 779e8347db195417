"""The route of refusals: attempts to attach as an agent that were refused."""

from typing import Annotated

from fastapi import APIRouter, Query

from hostler_hub.web.api import problems
from hostler_hub.web.api.responses import Json
from hostler_hub.web.api.schemas import workers as schemas
from hostler_hub.web.api.security import GuardedRoute, Operator
from hostler_hub.web.hub import HubPart

router = APIRouter(prefix="/api/v1/refusals", route_class=GuardedRoute, tags=["workers"])

PAGE_ROWS = 500


# Not for viewers: people give passwords as names, and addresses are nobody else's business.
@router.get("", response_model=schemas.RefusalList, responses=problems.responses())
async def page(
    hub: HubPart,
    caller: Operator,  # noqa: ARG001  # declares the role
    limit: Annotated[int, Query(ge=1, le=PAGE_ROWS)] = 100,
) -> Json:
    """Names as they were given, from where, why they were refused and how often; latest first."""
    return Json(schemas.RefusalList(items=hub.refusals.page(limit)))
