"""The routes that compare what providers list with what the hub knows, and settle differences."""

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from hostler_hub.errors import InvalidRequest
from hostler_hub.specs.fields import DriverName, Text, WorkerName
from hostler_hub.web.api import problems
from hostler_hub.web.api.responses import Json
from hostler_hub.web.api.schemas import reconcile as schemas
from hostler_hub.web.api.security import GuardedRoute, Operator, Viewer
from hostler_hub.web.hub import HubPart
from hostler_hub.workers.reconcile.views import reconcile_view
from hostler_hub.workers.views import evidence_view

router = APIRouter(prefix="/api/v1", route_class=GuardedRoute, tags=["reconcile"])


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Reconcile(_Body):
    """Which drivers to ask (default: all); `confirmed` allows actions that wait for a person."""

    drivers: Annotated[list[DriverName], Field(min_length=1, max_length=64)] | None = None
    dry_run: StrictBool = False
    confirmed: StrictBool = False


class Forget(_Body):
    """Workers whose instances are gone; `confirmed` is the caller's word for it."""

    names: Annotated[list[WorkerName], Field(max_length=10_000)]
    reason: Text
    confirmed: Literal[True]
    dry_run: StrictBool = False


@router.post("/reconcile", response_model=schemas.Reconciliation, responses=problems.responses())
async def reconcile(body: Reconcile, hub: HubPart, caller: Operator) -> Json:
    """Asks the providers for everything that carries this hub's mark, and settles the difference.

    Confirmed for all drivers, it also ends the hold of a hub that was restored from a backup.
    Returns when that is done, which takes as long as the slowest of them.
    """
    known = sorted(hub.reconciler.drivers)
    for index, driver in enumerate(body.drivers or ()):
        if driver not in known:
            raise InvalidRequest(
                f"driver {driver} has nothing to reconcile (there are {', '.join(known)})",
                pointer=f"/drivers/{index}",
            )
    if body.confirmed and not body.dry_run and body.drivers is None:
        await hub.reconciler.lift_hold(caller.name)
    report = await hub.reconciler.settle(
        drivers=body.drivers, dry_run=body.dry_run, confirmed=body.confirmed
    )
    return Json(reconcile_view(report))


@router.post(
    "/workers/forget", response_model=schemas.ForgetResults, responses=problems.responses(404, 409)
)
async def forget(body: Forget, hub: HubPart, caller: Operator) -> Json:
    """Frees workers from instances that a person has seen gone, though the driver cannot tell."""
    results = await hub.reconciler.forget(
        body.names, reason=body.reason, by=caller.name, dry_run=body.dry_run
    )
    return Json(schemas.ForgetResults(results=results))


@router.get(
    "/workers/{name}/evidence",
    response_model=schemas.EvidenceList,
    responses=problems.responses(404),
)
async def evidence(name: str, hub: HubPart, caller: Viewer) -> Json:  # noqa: ARG001
    """What drivers said of this worker's failed instances before they were destroyed."""
    hub.workers.view(name)
    rows = await hub.evidence.of_worker(name)
    return Json(schemas.EvidenceList(items=[evidence_view(row) for row in rows]))
