"""The routes of leases, by which a person has a whole worker for a while."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from hostler_hub.specs.build import Text, WorkerName
from hostler_hub.specs.fields import MONTH_S, Number, PositiveSeconds
from hostler_hub.web.api import problems
from hostler_hub.web.api.responses import Json
from hostler_hub.web.api.schemas import leases as schemas
from hostler_hub.web.api.security import GuardedRoute, Submitter, Viewer
from hostler_hub.web.hub import HubPart
from hostler_hub.workers.leases import Terms

router = APIRouter(prefix="/api/v1/leases", route_class=GuardedRoute, tags=["leases"])

PAGE_ROWS = 500
MAX_WAIT_S = 60

# What cannot be an id answers 404 like any other lease that is not there.
LeaseId = Annotated[str, Path(pattern=r"^[0-9A-HJKMNP-TV-Z]{26}$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AcquireLease(_Body):
    """A lease to acquire: of which worker, how long it lasts, how long to wait until it is held."""

    worker: WorkerName
    reason: Text | None = None
    ttl_s: PositiveSeconds = 3600
    wait_s: Annotated[Number, Field(ge=0, le=MONTH_S)] = 0
    keep: StrictBool = False
    dry_run: StrictBool = False


class RenewLease(_Body):
    """A renewal: the seconds from now, and the reason; what is left out stays as it was."""

    ttl_s: PositiveSeconds | None = None
    reason: Text | None = None
    dry_run: StrictBool = False


class ReleaseLease(_Body):
    """A release: `keep` leaves the instance to builds; `force` ends another person's lease."""

    keep: StrictBool | None = None
    force: StrictBool = False
    dry_run: StrictBool = False


class LeaseFilter(_Body):
    """Which leases to list: those that last, or those that are over."""

    worker: str | None = None
    holder: str | None = None
    ended: bool = False
    limit: Annotated[int, Field(ge=1, le=PAGE_ROWS)] = PAGE_ROWS


@router.get("", response_model=schemas.LeaseList, responses=problems.responses())
async def page(
    hub: HubPart,
    caller: Viewer,  # noqa: ARG001  # declares the role
    where: Annotated[LeaseFilter, Query()],
) -> Json:
    """Leases that last, by worker; with `ended` those that are over, newest first."""
    found = await hub.leases.page(
        worker=where.worker, holder=where.holder, ended=where.ended, limit=where.limit
    )
    return Json(found)


@router.post("", response_model=schemas.LeaseResult, responses=problems.responses(404, 409, 413))
async def acquire(body: AcquireLease, hub: HubPart, caller: Submitter) -> Json:
    """Leases a whole worker for the token's name, or begins to wait for it, and returns at once.

    Who has it or waits for it already is answered with that lease.
    """
    terms = Terms(float(body.ttl_s), float(body.wait_s), body.reason, body.keep)
    return Json(await hub.leases.acquire(body.worker, terms, by=caller, dry_run=body.dry_run))


@router.get("/{id}", response_model=schemas.LeaseView, responses=problems.responses(404))
async def view(
    id: LeaseId,
    hub: HubPart,
    caller: Viewer,  # noqa: ARG001  # declares the role
    wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S)] = 0,
) -> Json:
    """One lease; with `wait_s` held back until it is no longer waited for."""
    return Json(await hub.leases.wait(id, wait_s))


@router.post(
    "/{id}/renew", response_model=schemas.LeaseResult, responses=problems.responses(404, 409, 413)
)
async def renew(id: LeaseId, body: RenewLease, hub: HubPart, caller: Submitter) -> Json:
    """Lets a lease last longer; for its holder, and for operators."""
    result = await hub.leases.renew(
        id, ttl_s=body.ttl_s, reason=body.reason, by=caller, dry_run=body.dry_run
    )
    return Json(result)


@router.post(
    "/{id}/release", response_model=schemas.LeaseResult, responses=problems.responses(404, 409, 413)
)
async def release(
    id: LeaseId,
    body: ReleaseLease,
    hub: HubPart,
    caller: Submitter,
) -> Json:
    """Gives a worker back; for its holder, and for operators with `force`."""
    result = await hub.leases.release(
        id, keep=body.keep, force=body.force, by=caller, dry_run=body.dry_run
    )
    return Json(result)
