"""Deny by default (U7), and what a stranger may make the hub do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute, APIWebSocketRoute, iter_route_contexts

from hostler_hub.specs.caller import Role
from hostler_hub.web import application
from hostler_hub.web.api.security import AgentsOnly, GuardedRoute, Public, Require, declared

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import AsRole
    from hub.web.harness import Api

OPEN = {("GET", "/healthz"), ("GET", "/api/v1/agents/archive/{sha256}")}
NEEDED = {
    ("GET", "/api/v1/decisions"): Role.VIEWER,
    ("GET", "/api/v1/breakers"): Role.VIEWER,
    ("POST", "/api/v1/breakers/close"): Role.OPERATOR,
    ("GET", "/api/v1/groups"): Role.VIEWER,
    ("GET", "/api/v1/groups/{name}"): Role.VIEWER,
    ("POST", "/api/v1/groups/define"): Role.OPERATOR,
    ("POST", "/api/v1/groups/remove"): Role.OPERATOR,
    ("GET", "/api/v1/whoami"): Role.VIEWER,
    ("GET", "/api/v1/status"): Role.VIEWER,
    ("GET", "/api/v1/openapi.json"): Role.VIEWER,
    ("GET", "/api/v1/refusals"): Role.OPERATOR,
    ("GET", "/api/v1/workers"): Role.VIEWER,
    ("POST", "/api/v1/workers/query"): Role.VIEWER,
    ("POST", "/api/v1/workers/define"): Role.OPERATOR,
    ("POST", "/api/v1/workers/remove"): Role.OPERATOR,
    ("POST", "/api/v1/workers/mode"): Role.OPERATOR,
    ("POST", "/api/v1/workers/substantiate"): Role.OPERATOR,
    ("POST", "/api/v1/workers/insubstantiate"): Role.OPERATOR,
    ("GET", "/api/v1/workers/{name}"): Role.VIEWER,
    ("DELETE", "/api/v1/workers/{name}"): Role.OPERATOR,
    ("GET", "/api/v1/workers/{name}/events"): Role.VIEWER,
    ("GET", "/api/v1/workers/{name}/evidence"): Role.VIEWER,
    ("POST", "/api/v1/workers/forget"): Role.OPERATOR,
    ("POST", "/api/v1/reconcile"): Role.OPERATOR,
    ("POST", "/api/v1/builds"): Role.SUBMITTER,
    ("GET", "/api/v1/builds"): Role.VIEWER,
    ("GET", "/api/v1/builds/{id}"): Role.VIEWER,
    ("POST", "/api/v1/builds/{id}/cancel"): Role.SUBMITTER,
    ("GET", "/api/v1/builds/{id}/steps/{index}/log"): Role.VIEWER,
    ("GET", "/api/v1/builds/{id}/artifacts"): Role.VIEWER,
    ("GET", "/api/v1/builds/{id}/artifacts/{path:path}"): Role.VIEWER,
    ("POST", "/api/v1/files"): Role.SUBMITTER,
    ("GET", "/api/v1/leases"): Role.VIEWER,
    ("POST", "/api/v1/leases"): Role.SUBMITTER,
    ("GET", "/api/v1/leases/{id}"): Role.VIEWER,
    ("POST", "/api/v1/leases/{id}/renew"): Role.SUBMITTER,
    ("POST", "/api/v1/leases/{id}/release"): Role.SUBMITTER,
    ("GET", "/api/v1/incidents"): Role.VIEWER,
    ("GET", "/api/v1/incidents/{id}"): Role.VIEWER,
    ("POST", "/api/v1/incidents/{id}/close"): Role.OPERATOR,
    ("POST", "/api/v1/incidents/{id}/evidence"): Role.OPERATOR,
    ("GET", "/api/v1/deliveries"): Role.VIEWER,
    ("GET", "/api/v1/deliveries/{id}"): Role.VIEWER,
    ("POST", "/api/v1/deliveries/{id}/retry"): Role.OPERATOR,
    ("POST", "/api/v1/notifications/test"): Role.OPERATOR,
    ("POST", "/api/v1/tokens"): Role.ADMIN,
    ("GET", "/api/v1/tokens"): Role.ADMIN,
    ("DELETE", "/api/v1/tokens/{name}"): Role.ADMIN,
}
# The page asks for a session instead of a token in a header; see test_page.py.
PAGES_OPEN = {("GET", "/login"), ("POST", "/login"), ("GET", "/static/{name}")}
PAGES = {
    ("GET", "/"): Role.VIEWER,
    ("POST", "/breakers/close"): Role.OPERATOR,
    ("GET", "/workers/{name}"): Role.VIEWER,
    ("GET", "/builds"): Role.VIEWER,
    ("GET", "/builds/{id}"): Role.VIEWER,
    ("GET", "/builds/{id}/steps/{index}/log"): Role.VIEWER,
    ("GET", "/builds/{id}/steps/{index}/log/whole"): Role.VIEWER,
    ("GET", "/incidents"): Role.VIEWER,
    ("GET", "/incidents/{id}"): Role.VIEWER,
    ("POST", "/logout"): Role.VIEWER,
    ("POST", "/builds/{id}/cancel"): Role.SUBMITTER,
    ("POST", "/workers/{name}/mode"): Role.OPERATOR,
    ("POST", "/incidents/{id}/close"): Role.OPERATOR,
    ("POST", "/deliveries/{id}/retry"): Role.OPERATOR,
}
AGENTS = {"/", "/api/v1/agents/connect"}


def test_every_route_declares_who_may_call_it(api: Api) -> None:
    """Walks what the application really serves, not the routers that were meant to be in it."""
    seen, sockets = {}, set()
    for context in iter_route_contexts(api.app.routes):
        route = context.original_route
        assert isinstance(route, (APIRoute, APIWebSocketRoute)), route
        declaration = declared(route.dependant)
        if isinstance(route, APIWebSocketRoute):
            assert isinstance(declaration, AgentsOnly)
            sockets.add(route.path)
            continue
        for method in route.methods or ():
            assert isinstance(declaration, (Public, Require)), route.path
            role = declaration.role if isinstance(declaration, Require) else None
            seen[method, route.path] = role
    assert seen == {**dict.fromkeys(OPEN | PAGES_OPEN), **NEEDED, **PAGES}
    assert sockets == AGENTS
    assert len(list(application.routes())) == len(seen) + len(sockets)


def test_a_route_without_a_declaration_cannot_be_made() -> None:
    router = APIRouter(route_class=GuardedRoute)

    async def forgotten() -> None: ...

    with pytest.raises(TypeError, match="declares no role"):
        router.get("/forgotten")(forgotten)


@pytest.mark.parametrize(("method", "path"), sorted(NEEDED))
async def test_each_route_refuses_strangers_and_the_next_smaller_role(
    api: Api, as_role: AsRole, method: str, path: str
) -> None:
    path_filled = re.sub(r"\{\w+(:path)?\}", "0", path)
    stranger = await api.client().request(method, path_filled)
    assert stranger.status_code == 401
    assert stranger.headers["www-authenticate"].startswith("Bearer")
    smaller = list(Role)[: list(Role).index(NEEDED[method, path])]
    if smaller:
        client = await as_role(smaller[-1])
        refused = await client.request(method, path_filled)
        assert refused.status_code == 403
        assert str(NEEDED[method, path]) in refused.json()["detail"]
    client = await as_role(NEEDED[method, path])
    assert (await client.request(method, path_filled)).status_code not in (401, 403)


async def test_a_strangers_body_is_not_read(api: Api) -> None:
    """Who has no token cannot make the hub read, or parse, megabytes."""
    sent = 0

    async def body():  # type: ignore[no-untyped-def]
        nonlocal sent
        for _ in range(8):
            sent += 1
            yield b"x" * 1000

    answer = await api.client().post("/api/v1/workers/define", content=body())
    assert answer.status_code == 401
    assert sent <= 1


@pytest.mark.parametrize(
    "edit",
    [
        lambda token: token[:-1],
        lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"),
        lambda token: "hst_" + "0" * 12 + token[16:],
        lambda token: "",
        lambda token: "hst_é",
    ],
)
async def test_wrong_tokens_get_one_answer(api: Api, edit: Callable[[str], str]) -> None:
    token = edit(await api.token(Role.ADMIN)).encode()
    headers = {b"Authorization": b"Bearer " + token}
    answer = await api.client().get("/api/v1/whoami", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "The token is not known, or no longer valid"


async def test_other_schemes_two_headers_and_the_url_open_nothing(api: Api) -> None:
    token = await api.token(Role.ADMIN)
    client = api.client()
    twice = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
    assert (await client.get("/api/v1/whoami", headers=twice)).status_code == 401
    basic = {"Authorization": f"Basic {token}"}
    assert (await client.get("/api/v1/whoami", headers=basic)).status_code == 401
    assert (await client.get(f"/api/v1/whoami?token={token}")).status_code == 401
    cookie = {"Cookie": f"token={token}"}
    assert (await client.get("/api/v1/whoami", headers=cookie)).status_code == 401


async def test_guessing_is_slowed_down(api: Api) -> None:
    guess = {"Authorization": "Bearer hst_" + "a" * 12 + "_" + "B" * 43}
    client = api.client()
    codes = [(await client.get("/api/v1/whoami", headers=guess)).status_code for _ in range(11)]
    assert codes == [401] * 10 + [429]
    answer = await client.get("/api/v1/whoami", headers=guess)
    assert 0 < int(answer.headers["retry-after"]) <= 60


async def test_a_revoked_token_is_refused_at_once(api: Api, as_role: AsRole) -> None:
    admin, viewer = await as_role(Role.ADMIN), await as_role(Role.VIEWER)
    assert (await viewer.get("/api/v1/whoami")).json() == {"name": "a-viewer", "role": "viewer"}
    assert (await admin.delete("/api/v1/tokens/a-viewer")).status_code == 204
    assert (await viewer.get("/api/v1/whoami")).status_code == 401
