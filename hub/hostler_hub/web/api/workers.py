"""The routes of workers: define, look up, set modes, start and stop instances, remove."""

from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    model_validator,
)

from hostler_hub.lifecycle.model import Mode, State
from hostler_hub.specs.build import Text, WorkerName
from hostler_hub.specs.fields import Instant, PositiveSeconds, refuse
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.web.api import problems
from hostler_hub.web.api.responses import Json
from hostler_hub.web.api.schemas import workers as schemas
from hostler_hub.web.api.security import GuardedRoute, Operator, Viewer
from hostler_hub.web.hub import HubPart
from hostler_hub.workers.selection import Select

router = APIRouter(prefix="/api/v1/workers", route_class=GuardedRoute, tags=["workers"])

MAX_NAMES = 10_000
PAGE_ROWS = 500
Names = Annotated[list[WorkerName], Field(max_length=MAX_NAMES)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Filter(_Body):
    """Which workers to list; several conditions must all hold."""

    name: Annotated[list[str], Field(max_length=MAX_NAMES)] = []
    state: State | None = None
    mode: Mode | None = None
    driver: str | None = None
    label: str | None = None
    missing: bool | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_ROWS)] = PAGE_ROWS
    after: str | None = None


class _Targets(_Body):
    """The workers that a request is about: by name, or by a selection."""

    names: Names | None = None
    select: Select | None = None

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.names is None) == (self.select is None):
            raise refuse("targets", "give either names or select")
        return self


class QueryWorkers(_Targets):
    """Workers to look up, whether or not they exist."""

    names: Annotated[list[StrictStr], Field(max_length=MAX_NAMES)] | None = None


class DefineWorkers(_Body):
    """Definitions to store, all or none."""

    workers: Annotated[list[WorkerDefinition], Field(max_length=MAX_NAMES)]
    dry_run: StrictBool = False


class RemoveWorkers(_Targets):
    """Workers to remove; `force` cancels what they run."""

    dry_run: StrictBool = False
    force: StrictBool = False


class SetMode(_Targets):
    """A mode for workers, and the reason; until an instant, for some seconds, or for good."""

    mode: Mode
    reason: Text | None = None
    until: Instant | None = None
    for_s: PositiveSeconds | None = None
    dry_run: StrictBool = False

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.until is not None and self.for_s is not None:
            raise refuse("two_ends", "give either until or for_s")
        return self

    def ends_at(self, now: float) -> float | None:
        """When the mode ends, in seconds since the epoch; None: never."""
        if self.for_s is not None:
            return now + self.for_s
        return None if self.until is None else self.until.timestamp()


class NameWorkers(_Targets):
    """Workers to act on."""

    dry_run: StrictBool = False


@router.get("", response_model=schemas.WorkerPage, responses=problems.responses())
async def page(
    hub: HubPart,
    caller: Viewer,  # noqa: ARG001  # declares the role
    where: Annotated[Filter, Query()],
) -> Json:
    """Workers by name, a page at a time: give `next` as `after` for the next one."""
    return Json(
        hub.workers.page(
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


@router.post("/query", response_model=schemas.WorkerLookup, responses=problems.responses(413))
async def query(body: QueryWorkers, hub: HubPart, caller: Viewer) -> Json:  # noqa: ARG001
    """Any number of workers, by name or by a selection, in one answer."""
    return Json(hub.workers.query(hub.workers.choose(body.names, body.select)))


@router.post(
    "/define", response_model=schemas.DefineResults, responses=problems.responses(409, 413)
)
async def define(body: DefineWorkers, hub: HubPart, caller: Operator) -> Json:
    """Creates or changes workers: all of them or none."""
    results = await hub.definitions.define(body.workers, dry_run=body.dry_run, by=caller.name)
    return Json(schemas.DefineResults(results=results))


@router.post(
    "/remove", response_model=schemas.RemoveResults, responses=problems.responses(404, 409, 413)
)
async def remove(body: RemoveWorkers, hub: HubPart, caller: Operator) -> Json:
    """Removes workers; one whose instance must end first disappears once that is proven gone."""
    names = hub.workers.choose(body.names, body.select)
    results = await hub.workers.remove(
        names, force=body.force, dry_run=body.dry_run, by=caller.name
    )
    return Json(schemas.RemoveResults(results=results))


@router.post(
    "/mode", response_model=schemas.ModeResults, responses=problems.responses(404, 409, 413)
)
async def set_mode(body: SetMode, hub: HubPart, caller: Operator) -> Json:
    """Pauses, resumes, drains or stops workers; the token's name is noted as who wanted it."""
    results = await hub.workers.set_mode(
        hub.workers.choose(body.names, body.select),
        mode=body.mode,
        reason=body.reason,
        until=body.ends_at(hub.clock.now()),
        by=caller.name,
        dry_run=body.dry_run,
    )
    return Json(schemas.ModeResults(results=results))


@router.post(
    "/substantiate",
    response_model=schemas.StateResults,
    responses=problems.responses(404, 409, 413),
)
async def substantiate(body: NameWorkers, hub: HubPart, caller: Operator) -> Json:
    """Asks for instances and returns at once; look the workers up to see them come."""
    names = hub.workers.choose(body.names, body.select)
    results = await hub.workers.substantiate(names, by=caller.name, dry_run=body.dry_run)
    return Json(schemas.StateResults(results=results))


@router.post(
    "/insubstantiate",
    response_model=schemas.StateResults,
    responses=problems.responses(404, 409, 413),
)
async def insubstantiate(body: NameWorkers, hub: HubPart, caller: Operator) -> Json:
    """Asks for instances to end and returns at once."""
    names = hub.workers.choose(body.names, body.select)
    results = await hub.workers.insubstantiate(names, by=caller.name, dry_run=body.dry_run)
    return Json(schemas.StateResults(results=results))


@router.get("/{name}", response_model=schemas.WorkerView, responses=problems.responses(404))
async def view(name: str, hub: HubPart, caller: Viewer) -> Json:  # noqa: ARG001
    """One worker."""
    return Json(hub.workers.view(name))


@router.get("/{name}/events", response_model=schemas.EventList, responses=problems.responses(404))
async def events(
    name: str,
    hub: HubPart,
    caller: Viewer,  # noqa: ARG001  # declares the role
    limit: Annotated[int, Query(ge=1, le=PAGE_ROWS)] = 100,
) -> Json:
    """A worker's latest transitions with their causes, newest first."""
    return Json(schemas.EventList(items=await hub.workers.events(name, limit)))


@router.delete(
    "/{name}", response_model=schemas.RemoveResult, responses=problems.responses(404, 409)
)
async def remove_one(
    name: str, hub: HubPart, caller: Operator, force: Annotated[bool, Query()] = False
) -> Json:
    """Removes one worker."""
    results = await hub.workers.remove([name], force=force, dry_run=False, by=caller.name)
    return Json(results[0])
