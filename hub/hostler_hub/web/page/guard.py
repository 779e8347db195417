"""Who may see which page. Cookies open pages and nothing else; tokens in headers open none of them.

Unsafe requests need the session's CSRF token and must come from this very page: by ``Origin``, or,
where the browser withholds it (our Referrer-Policy makes it "null"), by ``Sec-Fetch-Site``.
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
from hostler_hub.web.page import render
from hostler_hub.web.page.sessions import Session

FORM_SIZE_BYTES = 16 * 1024


class Visit:
    """Who looks at a page, and the hub it shows."""

    def __init__(self, hub: Hub, caller: Caller, session: Session, request: Request) -> None:
        self.hub = hub
        self.caller = caller
        self.session = session
        self.request = request

    def show(self, template: str, **known: Any) -> Response:
        """The page, for this visitor."""
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
    """A page's declaration of the smallest role that may see it."""

    async def admit(self, request: Request) -> None:
        """Notes caller and session on the request. Raises Unauthenticated, Forbidden."""
        hub: Hub = request.app.state.hub
        session = request.app.state.sessions.find(request.cookies.get(cookie_name(request), ""))
        if session is None:
            raise Unauthenticated("Sign in first")
        client = request.client.host if request.client else ""
        caller = await hub.tokens.verify(session.token, client)
        if not caller.role.covers(self.role):
            raise Forbidden(f"This needs the role {self.role}; yours is {caller.role}")
        if request.method == "POST":
            refuse_other_sites(request)
            form = await read_form(request)
            if not session.check_csrf(form.get("csrf", "")):
                raise Forbidden("This form is no longer valid; go back, reload and try again")
        request.state.visit = Visit(hub, caller, session, request)

    async def __call__(self, request: Request) -> Visit:  # type: ignore[override]
        """The visitor that `admit` noted."""
        visit: Visit = request.state.visit
        return visit


Viewer = Annotated[Visit, Depends(SignedIn(Role.VIEWER))]
Submitter = Annotated[Visit, Depends(SignedIn(Role.SUBMITTER))]
Operator = Annotated[Visit, Depends(SignedIn(Role.OPERATOR))]


class PageRoute(APIRoute):
    """A route whose refusals are pages: to sign in, or that say what is wrong."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler behind the guard."""
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
    """Away to the form; what follows the log's growth is told so by the status instead."""
    if request.headers.get("sec-fetch-dest") == "empty":
        return render.error(refusal)
    back = request.url.path if request.method == "GET" else "/"
    query = "" if back == "/" else "?" + urlencode({"next": back})
    return RedirectResponse(f"/login{query}", status_code=303)


def refuse_other_sites(request: Request) -> None:
    """Raises Forbidden unless the request comes from a page of ours."""
    origin = request.headers.get("origin", "null")
    if origin != "null":
        own = urlsplit(origin).netloc == request.headers.get("host")
    else:
        own = request.headers.get("sec-fetch-site") == "same-origin"
    if not own:
        raise Forbidden("This request comes from another site")


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form, each once. Raises NotFound for what is none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if kind != "application/x-www-form-urlencoded" or len(body) > FORM_SIZE_BYTES:
        raise NotFound("This is no form of ours")
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=20)
    return {name: values[-1] for name, values in fields.items()}


def is_secure(request: Request) -> bool:
    """Whether the browser reached us by https, possibly through a proxy that is named so."""
    settings: Settings = request.app.state.hub.settings
    public = urlsplit(settings.public_url)
    by_proxy = public.scheme == "https" and public.netloc == request.headers.get("host")
    return request.url.scheme == "https" or by_proxy


def cookie_name(request: Request) -> str:
    """With the prefix no other site of the domain, and nobody in the clear, can set it."""
    return "__Host-hostler" if is_secure(request) else "hostler"
