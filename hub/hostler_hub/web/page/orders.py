"""The page's forms: sign in and out, set a mode, cancel, close, send again."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response

from hostler_hub.errors import HubError, InvalidRequest, NotFound
from hostler_hub.web.api.security import PUBLIC
from hostler_hub.web.hub import Hub
from hostler_hub.web.page import render
from hostler_hub.web.page.guard import (
    Operator,
    PageRoute,
    Submitter,
    Viewer,
    cookie_name,
    is_secure,
    read_form,
    refuse_other_sites,
)
from hostler_hub.web.page.sessions import LIFE_S, Sessions

router = APIRouter(route_class=PageRoute, include_in_schema=False)

REASON_SIZE = 500
Id = Annotated[str, Path(pattern=r"^[0-9A-HJKMNP-TV-Z]{26}$")]

_STATIC = {"style.css": "text/css", "page.js": "text/javascript", "log.js": "text/javascript"}
# A path of ours: no scheme, no host, nothing that a browser reads as one.
_PATH = re.compile(r"/(?!/)[A-Za-z0-9._~/-]*")


@router.get("/login", dependencies=[PUBLIC])
async def sign_in_form(next: str = "/") -> Response:  # the query's own word
    """The form that asks for a token."""
    return render.page("login.html", next=_ours(next), refusal=None)


@router.post("/login", dependencies=[PUBLIC])
async def sign_in(request: Request) -> Response:
    """Open a session for a valid token; for any other show the form again, with the refusal."""
    refuse_other_sites(request)
    form = await read_form(request)
    hub: Hub = request.app.state.hub
    token, back = form.get("token", "").strip(), _ours(form.get("next", "/"))
    try:
        await hub.tokens.verify(token, request.client.host if request.client else "")
    except HubError as refusal:
        return render.page(
            "login.html", status_code=refusal.status, next=back, refusal=refusal.detail
        )
    sessions: Sessions = request.app.state.sessions
    answer = RedirectResponse(back, status_code=303)
    answer.set_cookie(
        cookie_name(request),
        sessions.open(token),
        max_age=int(LIFE_S),
        secure=is_secure(request),
        httponly=True,
        samesite="lax",
    )
    return answer


@router.post("/logout")
async def sign_out(visit: Viewer) -> Response:
    """Ends the session, here and in the browser."""
    name = cookie_name(visit.request)
    visit.request.app.state.sessions.close(visit.request.cookies.get(name, ""))
    answer = RedirectResponse("/login", status_code=303)
    answer.delete_cookie(name, secure=is_secure(visit.request), httponly=True, samesite="lax")
    return answer


@router.post("/workers/{name}/mode")
async def set_mode(visit: Operator, name: str) -> Response:
    """Pauses, resumes, drains or stops a worker."""
    form = await read_form(visit.request)
    mode = form.get("mode", "")
    if mode not in ("active", "paused", "draining", "stopped"):
        raise InvalidRequest("There is no such mode")
    await visit.hub.workers.set_mode(
        [name], mode=mode, reason=_reason(form), by=visit.caller.name, dry_run=False, until=None
    )
    return RedirectResponse(f"/workers/{name}", status_code=303)


@router.post("/breakers/close")
async def close_breaker(visit: Operator) -> Response:
    """Let the workers of a failure domain be started again."""
    form = await read_form(visit.request)
    visit.hub.breakers.close([form.get("domain", "")], by=visit.caller.name)
    return RedirectResponse("/", status_code=303)


@router.post("/builds/{id}/cancel")
async def cancel(visit: Submitter, id: Id) -> Response:
    """Cancels a build."""
    form = await read_form(visit.request)
    await visit.hub.builds.cancel(id, reason=_reason(form), by=visit.caller.name)
    return RedirectResponse(f"/builds/{id}", status_code=303)


@router.post("/incidents/{id}/close")
async def close(visit: Operator, id: Id) -> Response:
    """Closes an incident."""
    form = await read_form(visit.request)
    await visit.hub.incidents.close(id, reason=_reason(form), by=visit.caller.name)
    return RedirectResponse(f"/incidents/{id}", status_code=303)


@router.post("/deliveries/{id}/retry")
async def retry(visit: Operator, id: Id) -> Response:
    """Send a notification again."""
    delivery = await visit.hub.incidents.retry(id)
    where = f"/incidents/{delivery.incident}" if delivery.incident else "/incidents"
    return RedirectResponse(where, status_code=303)


@router.get("/static/{name}", dependencies=[PUBLIC])
async def static(name: str) -> Response:
    """A style sheet or a script; only those in ``_STATIC`` are served."""
    if name not in _STATIC:
        raise NotFound("There is nothing here")
    headers = {"cache-control": "max-age=300", **render.HEADERS}
    return FileResponse(render.STATIC / name, media_type=_STATIC[name], headers=headers)


def _reason(form: dict[str, str]) -> str | None:
    return form.get("reason", "").strip()[:REASON_SIZE] or None


def _ours(path: str) -> str:
    return path if _PATH.fullmatch(path) else "/"
