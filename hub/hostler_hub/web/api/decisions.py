"""The log of decisions: what was started, stopped, matched, skipped, quarantined, and why."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from hostler_hub.specs.fields import Instant
from hostler_hub.store.decisions import Filter
from hostler_hub.web.api import problems
from hostler_hub.web.api.responses import Json
from hostler_hub.web.api.schemas import decisions as schemas
from hostler_hub.web.api.security import GuardedRoute, Viewer
from hostler_hub.web.hub import HubPart
from hostler_hub.workers.decisions import DecisionKind

router = APIRouter(prefix="/api/v1/decisions", route_class=GuardedRoute, tags=["decisions"])

PAGE_ROWS = 500
_MAX_ID = 2**63 - 1


class Where(BaseModel):
    """Which decisions to list; several conditions must all hold."""

    model_config = ConfigDict(extra="forbid")

    worker: str | None = None
    build: str | None = None
    group: str | None = None
    kind: DecisionKind | None = None
    since: Instant | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_ROWS)] = 100
    after: Annotated[int, Field(ge=1, le=_MAX_ID)] | None = None

    def filter(self) -> Filter:
        return Filter(self.worker, self.build, self.group, self.kind, _seconds(self.since))


def _seconds(instant: datetime | None) -> float | None:
    return None if instant is None else instant.timestamp()


@router.get("", response_model=schemas.DecisionPage, responses=problems.responses())
async def page(
    hub: HubPart,
    caller: Viewer,  # noqa: ARG001  # declares the role
    where: Annotated[Where, Query()],
) -> Json:
    """Decisions, newest first, a page at a time: give `next` as `after` for the next one."""
    return Json(await hub.decisions.page(where.filter(), where.limit, where.after))
