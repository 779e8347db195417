"""The routes of groups of workers: limits that they share, and counts of their instances."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from hostler_hub.specs.fields import WorkerName
from hostler_hub.specs.group import GroupDefinition
from hostler_hub.web.api import problems
from hostler_hub.web.api.responses import Json
from hostler_hub.web.api.schemas import groups as schemas
from hostler_hub.web.api.security import GuardedRoute, Operator, Viewer
from hostler_hub.web.hub import HubPart

router = APIRouter(prefix="/api/v1/groups", route_class=GuardedRoute, tags=["groups"])

MAX_GROUPS = 1000


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DefineGroups(_Body):
    """Definitions to store, all or none."""

    groups: Annotated[list[GroupDefinition], Field(max_length=MAX_GROUPS)]
    dry_run: StrictBool = False


class RemoveGroups(_Body):
    """Groups to remove; their workers stay."""

    names: Annotated[list[WorkerName], Field(max_length=MAX_GROUPS)]
    dry_run: StrictBool = False


@router.get("", response_model=schemas.GroupList, responses=problems.responses())
async def list_all(hub: HubPart, caller: Viewer) -> Json:  # noqa: ARG001  # declares the role
    """Every group by name, also those that only workers name."""
    return Json(hub.groups.listing())


@router.post(
    "/define", response_model=schemas.DefineGroupResults, responses=problems.responses(413)
)
async def define(body: DefineGroups, hub: HubPart, caller: Operator) -> Json:
    """Creates or changes groups: all of them or none."""
    results = await hub.groups.define(body.groups, dry_run=body.dry_run, by=caller.name)
    return Json(schemas.DefineGroupResults(results=results))


@router.post(
    "/remove", response_model=schemas.RemoveGroupResults, responses=problems.responses(413)
)
async def remove(body: RemoveGroups, hub: HubPart, caller: Operator) -> Json:
    """Removes groups; their workers stay, without limits in common."""
    results = await hub.groups.remove(body.names, dry_run=body.dry_run, by=caller.name)
    return Json(schemas.RemoveGroupResults(results=results))


@router.get("/{name}", response_model=schemas.GroupView, responses=problems.responses(404))
async def view(name: str, hub: HubPart, caller: Viewer) -> Json:  # noqa: ARG001
    """One group."""
    return Json(hub.groups.view(name))
