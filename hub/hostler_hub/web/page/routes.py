"""The pages of workers, builds and incidents: views of the hub's services, rendered."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from starlette.responses import Response, StreamingResponse

from hostler_hub.lifecycle.model import Mode, State
from hostler_hub.specs.build import STEPS
from hostler_hub.specs.states import BuildState
from hostler_hub.store import decisions, incidents
from hostler_hub.web.page.guard import PageRoute, Viewer

router = APIRouter(route_class=PageRoute, include_in_schema=False)

ROWS = 200
# How many waiting builds the page explains at each request.
EXPLAINED = 10
EVENTS = 50
LOG_PIECE_BYTES = 256 * 1024

Id = Annotated[str, Path(pattern=r"^[0-9A-HJKMNP-TV-Z]{26}$")]
StepIndex = Annotated[int, Path(ge=0, lt=STEPS)]
Word = Annotated[str, Query(max_length=200)]


@router.get("/")
async def workers(
    visit: Viewer,
    state: State | Literal[""] = "",
    mode: Mode | Literal[""] = "",
    label: Word = "",
    missing: bool = False,
    after: Word = "",
) -> Response:
    """All workers: the mode, the state, the builds or person that hold each, and what is
    wrong with it.
    """
    found = visit.hub.workers.page(
        names=[],
        state=state or None,
        mode=mode or None,
        driver=None,
        label=label or None,
        missing=missing or None,
        limit=ROWS,
        after=after or None,
    )
    wanted = {"state": state, "mode": mode, "label": label, "missing": missing}
    return visit.show(
        "workers.html",
        workers=found,
        wanted=wanted,
        states=list(State),
        modes=list(Mode),
        counts=visit.hub.workers.counts(),
        breakers=visit.hub.breakers.listing().items,
        builds=visit.hub.supervisor.counts(),
        incidents=await visit.hub.incidents.counts(),
    )


@router.get("/workers/{name}")
async def worker(visit: Viewer, name: str) -> Response:
    """One worker with its events, decisions, builds and incidents."""
    hub = visit.hub
    view = hub.workers.view(name)
    events, decided, builds, told = await asyncio.gather(
        hub.workers.events(name, EVENTS),
        hub.decisions.page(decisions.Filter(worker=name), EVENTS, None),
        hub.builds.page(state=None, worker=name, limit=20, after=None),
        hub.incidents.page(incidents.Filter(worker=name), limit=10, after=None),
    )
    return visit.show(
        "worker.html",
        worker=view,
        events=events,
        decisions=decided.items,
        builds=builds.items,
        incidents=told.items,
    )


@router.get("/builds")
async def builds(visit: Viewer, state: BuildState | Literal[""] = "", after: Word = "") -> Response:
    """The builds: those that wait, and why; those that run; those that have ended."""
    queue = visit.hub.builds
    found = await queue.page(state=state or None, worker=None, limit=ROWS, after=after or None)
    waiting = await queue.page(state="queued", worker=None, limit=ROWS, after=None)
    first = list(itertools.islice(reversed(waiting.items), EXPLAINED))
    explained = await asyncio.gather(*(queue.get(each.id) for each in first))
    return visit.show(
        "builds.html",
        builds=found,
        state_wanted=state,
        states=list(BuildState),
        waiting=[each for each in explained if each.state is BuildState.QUEUED],
        more_waiting=max(0, len(waiting.items) - len(first)),
    )


@router.get("/builds/{id}")
async def build(visit: Viewer, id: Id) -> Response:
    """One build with its steps and their logs as they grow; while it waits, the reasons why."""
    hub = visit.hub
    view = await hub.builds.get(id)
    decided = await hub.decisions.page(decisions.Filter(build=id), EVENTS, None)
    return visit.show("build.html", build=view, decisions=decided.items)


@router.get("/builds/{id}/steps/{index}/log")
async def log(
    visit: Viewer, id: Id, index: StepIndex, offset: Annotated[int, Query(ge=0, lt=2**63)] = 0
) -> Response:
    """The next piece of a step's log, as an attachment, which no browser renders as a page."""
    part = await visit.hub.builds.read_log(id, index, offset, LOG_PIECE_BYTES)
    headers = {
        "content-disposition": f'attachment; filename="{id}-{index}.log"',
        "hostler-log-end": str(part.end),
        "hostler-log-complete": "true" if part.complete else "false",
    }
    return Response(part.data, media_type="text/plain", headers=headers)


@router.get("/builds/{id}/steps/{index}/log/whole")
async def whole_log(visit: Viewer, id: Id, index: StepIndex) -> Response:
    """A step's log up to its present end, as a file to download."""
    queue = visit.hub.builds
    first = await queue.read_log(id, index, 0, LOG_PIECE_BYTES)

    async def pieces() -> AsyncIterator[bytes]:
        part = first
        while part.data:
            yield part.data
            part = await queue.read_log(id, index, part.end, LOG_PIECE_BYTES)

    headers = {"content-disposition": f'attachment; filename="{id}-{index}.log"'}
    return StreamingResponse(pieces(), media_type="text/plain", headers=headers)


@router.get("/incidents")
async def all_incidents(
    visit: Viewer, show: Literal["open", "all"] = "open", after: Word = ""
) -> Response:
    """The incidents, open or all, and the notifications that could not be delivered."""
    where = incidents.Filter(open=True if show == "open" else None)
    found = await visit.hub.incidents.page(where, limit=ROWS, after=after or None)
    failed = await visit.hub.incidents.deliveries(
        state="failed", incident=None, limit=20, after=None
    )
    return visit.show("incidents.html", incidents=found, shown=show, failed=failed.items)


@router.get("/incidents/{id}")
async def incident(visit: Viewer, id: Id) -> Response:
    """One incident, with its evidence and who was notified of it."""
    view = await visit.hub.incidents.get(id)
    evidence = await visit.hub.evidence.of_worker(view.worker)
    told = [each for each in evidence if each["instance"] == view.instance]
    return visit.show("incident.html", incident=view, texts=told)
