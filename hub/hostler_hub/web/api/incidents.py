"""Incidents, and the messages that tell people of them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints

from hostler_hub.specs.build import Text
from hostler_hub.store import incidents as rows
from hostler_hub.web.api import problems
from hostler_hub.web.api.responses import Json
from hostler_hub.web.api.schemas import incidents as schemas
from hostler_hub.web.api.security import GuardedRoute, Operator, Viewer
from hostler_hub.web.hub import HubPart

router = APIRouter(prefix="/api/v1", route_class=GuardedRoute, tags=["incidents"])

PAGE_ROWS = 500

# What cannot be an id answers 404 like any other that is not there.
Id = Annotated[str, Path(pattern=r"^[0-9A-HJKMNP-TV-Z]{26}$")]
EvidenceName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
EvidenceText = Annotated[str, StringConstraints(min_length=1, max_length=16 * 1024)]
Limit = Annotated[int, Field(ge=1, le=PAGE_ROWS)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Filter(_Body):
    """Which incidents to list; several conditions must all hold."""

    open: bool | None = None
    worker: str | None = None
    kind: str | None = None
    limit: Limit = PAGE_ROWS
    after: str | None = None


class DeliveryFilter(_Body):
    """Which deliveries to list; several conditions must all hold."""

    state: Literal["pending", "sent", "failed"] | None = None
    incident: str | None = None
    limit: Limit = PAGE_ROWS
    after: str | None = None


class CloseIncident(_Body):
    """Why a person closes an incident."""

    reason: Text | None = None


class NoteEvidence(_Body):
    """Texts by name, and whether to tell those who were told of the incident."""

    evidence: Annotated[dict[EvidenceName, EvidenceText], Field(min_length=1, max_length=16)]
    tell: StrictBool = True


@router.get("/incidents", response_model=schemas.IncidentPage, responses=problems.responses())
async def page(
    hub: HubPart,
    caller: Viewer,  # noqa: ARG001  # declares the role
    where: Annotated[Filter, Query()],
) -> Json:
    """Incidents, newest first, a page at a time: give `next` as `after` for the next one."""
    wanted = rows.Filter(open=where.open, worker=where.worker, kind=where.kind)
    return Json(await hub.incidents.page(wanted, limit=where.limit, after=where.after))


@router.get(
    "/incidents/{id}", response_model=schemas.IncidentDetail, responses=problems.responses(404)
)
async def view(id: Id, hub: HubPart, caller: Viewer) -> Json:  # noqa: ARG001
    """One incident with its evidence and its deliveries."""
    return Json(await hub.incidents.get(id))


@router.post(
    "/incidents/{id}/close",
    response_model=schemas.IncidentDetail,
    responses=problems.responses(404, 413),
)
async def close(id: Id, hub: HubPart, caller: Operator, body: CloseIncident | None = None) -> Json:
    """Closes an incident; most close by themselves. A closed one stays as it was closed."""
    reason = body.reason if body else None
    return Json(await hub.incidents.close(id, reason=reason, by=caller.name))


@router.post(
    "/incidents/{id}/evidence",
    response_model=schemas.IncidentDetail,
    responses=problems.responses(404, 409, 413),
)
async def note(id: Id, body: NoteEvidence, hub: HubPart, caller: Operator) -> Json:
    """Adds texts to an incident's evidence; the same texts again change nothing."""
    noted = await hub.incidents.note(id, body.evidence, tell=body.tell, by=caller.name)
    return Json(noted)


@router.get("/deliveries", response_model=schemas.DeliveryPage, responses=problems.responses())
async def deliveries(
    hub: HubPart,
    caller: Viewer,  # noqa: ARG001
    where: Annotated[DeliveryFilter, Query()],
) -> Json:
    """Messages to people, newest first: which were sent, which wait, which were given up."""
    return Json(
        await hub.incidents.deliveries(
            state=where.state, incident=where.incident, limit=where.limit, after=where.after
        )
    )


@router.get(
    "/deliveries/{id}", response_model=schemas.DeliveryView, responses=problems.responses(404)
)
async def delivery(id: Id, hub: HubPart, caller: Viewer) -> Json:  # noqa: ARG001
    """One message to one recipient."""
    return Json(await hub.incidents.delivery(id))


@router.post(
    "/deliveries/{id}/retry",
    response_model=schemas.DeliveryView,
    responses=problems.responses(404, 409),
)
async def retry(id: Id, hub: HubPart, caller: Operator) -> Json:  # noqa: ARG001
    """Sends a message at once that waits for its next try or was given up."""
    return Json(await hub.incidents.retry(id))


@router.post(
    "/notifications/test", response_model=schemas.DeliveryList, responses=problems.responses(409)
)
async def test(hub: HubPart, caller: Operator) -> Json:  # noqa: ARG001
    """Sends a test to everybody in the hub's own settings; look the deliveries up to see it go."""
    return Json(schemas.DeliveryList(items=await hub.incidents.test()))
