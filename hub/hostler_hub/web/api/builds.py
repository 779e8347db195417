"""The routes of builds: submit, look up, cancel, read logs."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from hostler_hub.specs.build import STEPS, BuildSpec, Text
from hostler_hub.web.api import problems
from hostler_hub.web.api.responses import Json
from hostler_hub.web.api.schemas import builds as schemas
from hostler_hub.web.api.security import GuardedRoute, Submitter, Viewer
from hostler_hub.web.hub import HubPart

router = APIRouter(prefix="/api/v1/builds", route_class=GuardedRoute, tags=["builds"])

PAGE_ROWS = 500
MAX_WAIT_S = 60
LOG_SLICE_SIZE_BYTES = 1024 * 1024
_MAX_OFFSET = 2**63 - 1

# What cannot be an id answers 404 like any other build that is not there.
BuildId = Annotated[str, Path(pattern=r"^[0-9A-HJKMNP-TV-Z]{26}$")]
StepIndex = Annotated[int, Path(ge=0, lt=STEPS)]
IdempotencyKey = Annotated[
    str | None, Header(alias="Idempotency-Key", pattern=r"^[\x21-\x7e]{1,255}$")
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Filter(_Body):
    """Which builds to list."""

    state: schemas.BuildState | None = None
    worker: str | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_ROWS)] = PAGE_ROWS
    after: str | None = None


class LogRange(_Body):
    """Which bytes of a log to read."""

    offset: Annotated[int, Field(ge=0, le=_MAX_OFFSET)] = 0
    limit: Annotated[int, Field(ge=1, le=4 * LOG_SLICE_SIZE_BYTES)] = LOG_SLICE_SIZE_BYTES
    follow: bool = False


class CancelBuild(_Body):
    """Why a build is cancelled."""

    reason: Text | None = None


@router.post(
    "",
    status_code=201,
    response_model=schemas.BuildView,
    responses={
        200: {"description": "Known already by its Idempotency-Key", "model": schemas.BuildView},
        **problems.responses(409, 413),
    },
)
async def submit(
    body: BuildSpec, hub: HubPart, caller: Submitter, idempotency_key: IdempotencyKey = None
) -> Json:
    """Accepts a build; from then on it ends in exactly one result."""
    view, created = await hub.builds.submit(body, by=caller.name, idempotency_key=idempotency_key)
    location = {"Location": f"{router.prefix}/{view.id}"}
    return Json(view, status_code=201 if created else 200, headers=location)


@router.get("", response_model=schemas.BuildPage, responses=problems.responses())
async def page(
    hub: HubPart,
    caller: Viewer,  # noqa: ARG001  # declares the role
    where: Annotated[Filter, Query()],
) -> Json:
    """Builds, newest first, a page at a time."""
    return Json(
        await hub.builds.page(
            state=where.state, worker=where.worker, limit=where.limit, after=where.after
        )
    )


@router.get("/{id}", response_model=schemas.BuildView, responses=problems.responses(404))
async def view(
    id: BuildId,  # the path's own word
    hub: HubPart,
    caller: Viewer,  # noqa: ARG001
    wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S)] = 0,
) -> Json:
    """One build; with `wait_s` the answer comes when it has ended, or after that many seconds."""
    return Json(await (hub.builds.wait(id, wait_s) if wait_s else hub.builds.get(id)))


@router.post(
    "/{id}/cancel", response_model=schemas.BuildView, responses=problems.responses(404, 413)
)
async def cancel(
    id: BuildId,
    hub: HubPart,
    caller: Submitter,
    body: CancelBuild | None = None,
) -> Json:
    """Cancels a build; one that has ended stays as it ended (A13)."""
    reason = body.reason if body else None
    return Json(await hub.builds.cancel(id, reason=reason, by=caller.name))


@router.get(
    "/{id}/steps/{index}/log",
    response_class=Response,
    responses={
        200: {
            "description": "Raw bytes; Hostler-Log-End is the offset to go on from",
            "content": {"text/plain; charset=utf-8": {}},
        },
        **problems.responses(404),
    },
)
async def log(
    id: BuildId,
    index: StepIndex,
    hub: HubPart,
    caller: Viewer,  # noqa: ARG001
    where: Annotated[LogRange, Query()],
) -> Response:
    """A step's output; with `follow` it streams until the step ends."""
    # Attachment: no browser may ever take a build's output for a page (U8).
    headers = {
        "Content-Disposition": f'attachment; filename="{id}-{index}.log"',
        "Hostler-Log-Offset": str(where.offset),
    }
    if where.follow:
        # What is unknown must be refused before the answer begins.
        await hub.builds.read_log(id, index, where.offset, 1)
        growing: AsyncIterator[bytes] = hub.builds.follow_log(id, index, where.offset)
        return StreamingResponse(growing, media_type="text/plain", headers=headers)
    part = await hub.builds.read_log(id, index, where.offset, where.limit)
    headers["Hostler-Log-Offset"] = str(part.offset)
    headers["Hostler-Log-End"] = str(part.end)
    headers["Hostler-Log-Complete"] = "true" if part.complete else "false"
    return Response(part.data, media_type="text/plain", headers=headers)
