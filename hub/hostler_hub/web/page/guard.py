"""Access control of the pages. Cookies open pages and nothing else; tokens in headers open no page.

Unsafe requests need the session's CSRF token and must come from a page of this hub: by ``Origin``,
or, where the browser withholds it (our Referrer-Policy makes it "null"), by ``Sec-Fetch-Site``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import parse_qs, urlencode, urlsplit

from fastapi import Depends
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from hostler_hub.errors import Forbidden, HubError, NotFound, TooManyAttempts, Unauthenticated
from hostler_hub.runtime.settings import Settings
from hostler_hub.specs.caller import Caller, Role
from hostler_hub.web.api.security import Public, Require, declared
from hostler_hub.web.hub import Hub
from hostler_hub.web.listener.http import note_authenticated
from hostler_hub.web.page import render
from hostler_hub.web.page.sessions import Session

FORM_SIZE_BYTES = 16 * 1024


class Visit:
    """One request for a page: the hub, and the caller with their session."""

    def __init__(self, hub: Hub, caller: Caller, session: Session, request: Request) -> None:
        self.hub = hub
        self.caller = caller
        self.session = session
        self.request = request

    def show(self, template: str, **known: Any) -> Response:
        """Render ``template`` for this caller. ``known``: further variables of the template."""
        operator = self.caller.role.covers(Role.OPERATOR)
        return render.page(
            template,
            caller=self.caller,
            csrf=self.session.csrf,
            may_operate=operator,
            may_submit=self.caller.role.covers(Role.SUBMITTER),
            path=self.request.url.path,
            hub_id=self.hub.id,
            now=self.hub.clock.now(),
            **known,
        )


class SignedIn(Require):
    """The dependency with which a page declares the smallest role that may see it."""

    async def admit(self, request: Request) -> None:
        """Check the session, the role and, for a POST, the site and the CSRF token; keep the Visit
        on the request.

        Raises Unauthenticated, Forbidden; NotFound if a POST has no form.
        """
        hub: Hub = request.app.state.hub
        session = request.app.state.sessions.find(request.cookies.get(cookie_name(request), ""))
        if session is None:
            raise Unauthenticated("Sign in first")
        client = request.client.host if request.client else ""
        caller = await hub.tokens.verify(session.token, client)
        if not caller.role.covers(self.role):
            raise Forbidden(f"This needs the role {self.role}; yours is {caller.role}")
        note_authenticated(request.scope)
        if request.method == "POST":
            refuse_other_sites(request)
            form = await read_form(request)
            if not session.check_csrf(form.get("csrf", "")):
                raise Forbidden("This form is no longer valid; go back, reload and try again")
        request.state.visit = Visit(hub, caller, session, request)

    async def __call__(self, request: Request) -> Visit:  # type: ignore[override]
        """The Visit that `admit` kept on the request."""
        visit: Visit = request.state.visit
        return visit


Viewer = Annotated[Visit, Depends(SignedIn(Role.VIEWER))]
Submitter = Annotated[Visit, Depends(SignedIn(Role.SUBMITTER))]
Operator = Annotated[Visit, Depends(SignedIn(Role.OPERATOR))]


class PageRoute(APIRoute):
    """A route that answers a refusal with a page: the sign-in form, or an error page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler, called once the guard has admitted the request. Raises TypeError
        if the route declares no role.
        """
        handler = super().get_route_handler()
        guard = declared(self.dependant)
        if not isinstance(guard, SignedIn | Public):
            raise TypeError(f"{self.path} declares no role")

        async def guarded(request: Request) -> Response:
            try:
                await guard.admit(request)
                return await handler(request)
            except (Unauthenticated, TooManyAttempts) as refusal:
                if self.path == "/login":
                    raise
                return to_sign_in(request, refusal)
            except HubError as refusal:
                return render.error(refusal)

        return guarded


def to_sign_in(request: Request, refusal: HubError) -> Response:
    """Redirect to the sign-in form. A script's request, such as the one that follows a log, gets
    the refusal's status instead.
    """
    if request.headers.get("sec-fetch-dest") == "empty":
        return render.error(refusal)
    back = request.url.path if request.method == "GET" else "/"
    query = "" if back == "/" else "?" + urlencode({"next": back})
    return RedirectResponse(f"/login{query}", status_code=303)


def refuse_other_sites(request: Request) -> None:
    """Raise Forbidden unless the request comes from a page of this hub."""
    origin = request.headers.get("origin", "null")
    if origin != "null":
        own = urlsplit(origin).netloc == request.headers.get("host")
    else:
        own = request.headers.get("sec-fetch-site") == "same-origin"
    if not own:
        raise Forbidden("This request comes from another site")


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form, by name; of a field that comes twice the last value. Raises NotFound if
    the body is no form or is too large.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if kind != "application/x-www-form-urlencoded" or len(body) > FORM_SIZE_BYTES:
        raise NotFound("This is no form of ours")
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=20)
    return {name: values[-1] for name, values in fields.items()}


def is_secure(request: Request) -> bool:
    """Whether the browser uses https, to the hub itself or to the proxy at ``public_url``."""
    settings: Settings = request.app.state.hub.settings
    public = urlsplit(settings.public_url)
    by_proxy = public.scheme == "https" and public.netloc == request.headers.get("host")
    return request.url.scheme == "https" or by_proxy


def cookie_name(request: Request) -> str:
    """The name of the session's cookie. With https it has the prefix ``__Host-``, so that neither
    another site of the domain nor anybody on an unencrypted connection can set it.
    """
    return "__Host-hostler" if is_secure(request) else "hostler"
