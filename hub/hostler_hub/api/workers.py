"""The fleet: define workers, see them, say what is wanted of them."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr

from hostler_hub.api import problems, views
from hostler_hub.api.ports import HubPart
from hostler_hub.api.responses import Json
from hostler_hub.api.security import GuardedRoute, Operator, Viewer
from hostler_hub.specs import Text, WorkerDefinition, WorkerName

router = APIRouter(prefix="/api/v1/workers", route_class=GuardedRoute, tags=["workers"])

MAX_NAMES = 10_000
PAGE_ROWS = 500
Names = Annotated[list[WorkerName], Field(max_length=MAX_NAMES)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Filter(_Body):
    """Which workers to list; several conditions must all hold."""

    name: Annotated[list[str], Field(max_length=MAX_NAMES)] = []
    state: views.WorkerState | None = None
    mode: views.WorkerMode | None = None
    driver: str | None = None
    label: str | None = None
    missing: bool | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_ROWS)] = PAGE_ROWS
    after: str | None = None


class QueryWorkers(_Body):
    """Workers to look up, whether or not they exist."""

    names: Annotated[list[StrictStr], Field(max_length=MAX_NAMES)]


class DefineWorkers(_Body):
    """Definitions to store, all or none."""

    workers: Annotated[list[WorkerDefinition], Field(max_length=MAX_NAMES)]
    dry_run: StrictBool = False


class RemoveWorkers(_Body):
    """Workers to remove; `force` cancels what they run."""

    names: Names
    dry_run: StrictBool = False
    force: StrictBool = False


class SetMode(_Body):
    """What is wanted of workers, and why."""

    names: Names
    mode: views.WorkerMode
    reason: Text | None = None
    dry_run: StrictBool = False


class NameWorkers(_Body):
    """Workers to act on."""

    names: Names
    dry_run: StrictBool = False


@router.get("", response_model=views.WorkerPage, responses=problems.responses())
async def page(
    hub: HubPart,
    caller: Viewer,  # noqa: ARG001  # declares the role
    where: Annotated[Filter, Query()],
) -> Json:
    """Workers by name, a page at a time: give `next` as `after` for the next one."""
    return Json(
        hub.fleet.page(
            names=where.name,
            state=where.state,
            mode=where.mode,
            driver=where.driver,
            label=where.label,
            missing=where.missing,
            limit=where.limit,
            after=where.after,
        )
    )


@router.post("/query", response_model=views.WorkerLookup, responses=problems.responses(413))
async def query(body: QueryWorkers, hub: HubPart, caller: Viewer) -> Json:  # noqa: ARG001
    """Any number of workers by name, in one answer."""
    return Json(hub.fleet.query(body.names))


@router.post("/define", response_model=views.DefineResults, responses=problems.responses(409, 413))
async def define(body: DefineWorkers, hub: HubPart, caller: Operator) -> Json:
    """Creates or changes workers: all of them or none."""
    results = await hub.fleet.define(body.workers, dry_run=body.dry_run, by=caller.name)
    return Json({"results": results})


@router.post(
    "/remove", response_model=views.RemoveResults, responses=problems.responses(404, 409, 413)
)
async def remove(body: RemoveWorkers, hub: HubPart, caller: Operator) -> Json:
    """Removes workers; one whose instance must end first disappears once that is proven gone."""
    results = await hub.fleet.remove(
        body.names, force=body.force, dry_run=body.dry_run, by=caller.name
    )
    return Json({"results": results})


@router.post("/mode", response_model=views.ModeResults, responses=problems.responses(404, 409, 413))
async def set_mode(body: SetMode, hub: HubPart, caller: Operator) -> Json:
    """Pauses, resumes, drains or stops workers; the token's name is noted as who wanted it."""
    results = await hub.fleet.set_mode(
        body.names, mode=body.mode, reason=body.reason, by=caller.name, dry_run=body.dry_run
    )
    return Json({"results": results})


@router.post(
    "/substantiate", response_model=views.StateResults, responses=problems.responses(404, 409, 413)
)
async def substantiate(body: NameWorkers, hub: HubPart, caller: Operator) -> Json:
    """Asks for instances and returns at once; look the workers up to see them come."""
    results = await hub.fleet.substantiate(body.names, by=caller.name, dry_run=body.dry_run)
    return Json({"results": results})


@router.post(
    "/insubstantiate",
    response_model=views.StateResults,
    responses=problems.responses(404, 409, 413),
)
async def insubstantiate(body: NameWorkers, hub: HubPart, caller: Operator) -> Json:
    """Asks for instances to end and returns at once."""
    results = await hub.fleet.insubstantiate(body.names, by=caller.name, dry_run=body.dry_run)
    return Json({"results": results})


@router.get("/{name}", response_model=views.WorkerView, responses=problems.responses(404))
async def view(name: str, hub: HubPart, caller: Viewer) -> Json:  # noqa: ARG001
    """One worker."""
    return Json(hub.fleet.view(name))


@router.get("/{name}/events", response_model=views.EventList, responses=problems.responses(404))
async def events(
    name: str,
    hub: HubPart,
    caller: Viewer,  # noqa: ARG001  # declares the role
    limit: Annotated[int, Query(ge=1, le=PAGE_ROWS)] = 100,
) -> Json:
    """A worker's latest transitions with their causes, newest first."""
    return Json({"items": await hub.fleet.events(name, limit)})


@router.delete("/{name}", response_model=views.RemoveResult, responses=problems.responses(404, 409))
async def remove_one(
    name: str, hub: HubPart, caller: Operator, force: Annotated[bool, Query()] = False
) -> Json:
    """Removes one worker."""
    results = await hub.fleet.remove([name], force=force, dry_run=False, by=caller.name)
    return Json(results[0])
