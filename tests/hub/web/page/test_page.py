"""Who may see the page: sessions, cookies, forms, and the headers that go with it (U8)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hub.web.api.test_security import PAGES  # the table of what each page needs

from hostler_hub.specs.caller import Role
from hostler_hub.web.page.sessions import IDLE_S, LIFE_S, SESSIONS, Sessions

if TYPE_CHECKING:
    import httpx2
    from hub.web.harness import Api

HUB = "http://hub.example"
OURS = {"origin": HUB}
WORKERS = "/api/v1/workers"


async def sign_in(api: Api, role: Role, **headers: str) -> httpx2.Response:
    token = await api.token(role)
    form = {"token": token, "next": "/incidents"}
    return await api.client().post("/login", data=form, headers=headers or OURS)


async def csrf(api: Api) -> str:
    page = await api.client().get("/incidents")
    found = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert found is not None
    return found[1]


@pytest.fixture
async def worker(operator: httpx2.AsyncClient) -> str:
    workers = [{"name": "w", "driver": "fake"}]
    assert (await operator.post(f"{WORKERS}/define", json={"workers": workers})).is_success
    return "w"


async def test_a_stranger_is_sent_to_sign_in_and_then_where_he_wanted(api: Api) -> None:
    away = await api.client().get("/incidents")
    assert (away.status_code, away.headers["location"]) == (303, "/login?next=%2Fincidents")
    form = await api.client().get(away.headers["location"])
    assert 'value="/incidents"' in form.text
    inside = await sign_in(api, Role.VIEWER)
    assert (inside.status_code, inside.headers["location"]) == (303, "/incidents")
    assert (await api.client().get("/incidents")).status_code == 200


@pytest.mark.parametrize(
    "evil", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "/a\r\nb"]
)
async def test_nobody_is_sent_to_another_site(api: Api, evil: str) -> None:
    form = {"token": await api.token(Role.VIEWER), "next": evil}
    answer = await api.client().post("/login", data=form, headers=OURS)
    assert answer.headers["location"] == "/"


async def test_the_cookie_is_out_of_reach(api: Api) -> None:
    plain = (await sign_in(api, Role.VIEWER)).headers["set-cookie"]
    assert plain.startswith("hostler=")
    assert {"HttpOnly", "Path=/", "SameSite=lax", "Max-Age=43200"} <= set(plain.split("; "))
    form = {"token": await api.token(Role.VIEWER)}
    secure = await api.client().post(
        "https://hub.example/login", data=form, headers={"origin": "https://hub.example"}
    )
    cookie = secure.headers["set-cookie"]
    assert cookie.startswith("__Host-hostler=")
    assert "Secure" in cookie.split("; ")
    assert "Domain" not in cookie


async def test_a_wrong_token_opens_nothing(api: Api) -> None:
    answer = await api.client().post("/login", data={"token": "hst_x"}, headers=OURS)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "hst_x" not in answer.text


async def test_guessing_is_slowed_down(api: Api) -> None:
    statuses = [
        (await api.client().post("/login", data={"token": "x"}, headers=OURS)).status_code
        for _ in range(11)
    ]
    assert statuses[0] == 401
    assert statuses[-1] == 429


async def test_a_bearer_token_opens_no_page_and_a_cookie_no_api(api: Api) -> None:
    bearer = api.client(await api.token(Role.ADMIN))
    assert (await bearer.get("/incidents")).status_code == 303
    await sign_in(api, Role.ADMIN)
    assert (await api.client().get("/api/v1/workers")).status_code == 401


async def test_a_revoked_token_ends_its_sessions_at_once(api: Api) -> None:
    await sign_in(api, Role.VIEWER)
    await api.hub.tokens.delete("a-viewer")
    assert (await api.client().get("/incidents")).status_code == 303


async def test_signing_out_ends_the_session_here_too(api: Api) -> None:
    await sign_in(api, Role.VIEWER)
    cookie = dict(api.client().cookies)
    form = {"csrf": await csrf(api)}
    assert (await api.client().post("/logout", data=form, headers=OURS)).status_code == 303
    api.client().cookies.update(cookie)
    assert (await api.client().get("/incidents")).status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://hub.example.evil"},
        {"origin": "null"},
        {"origin": "null", "sec-fetch-site": "cross-site"},
        {"origin": "null", "sec-fetch-site": "same-site"},
    ],
)
async def test_CSRF_another_site_s_request_is_refused_even_with_a_token(
    api: Api, operator: httpx2.AsyncClient, worker: str, headers: dict[str, str]
) -> None:
    await sign_in(api, Role.ADMIN)
    form = {"csrf": await csrf(api), "mode": "paused"}
    answer = await api.client().post("/workers/w/mode", data=form, headers=headers)
    assert answer.status_code == 403
    view = (await operator.get(f"{WORKERS}/{worker}")).json()
    assert (view["mode"], view["mode_by"]) == ("active", None)
    assert (await sign_in(api, Role.OPERATOR, **headers)).status_code == 403


async def test_CSRF_a_browser_that_withholds_the_origin_says_where_it_comes_from(api: Api) -> None:
    await sign_in(api, Role.VIEWER, origin="null", **{"sec-fetch-site": "same-origin"})
    assert (await api.client().get("/incidents")).status_code == 200


@pytest.mark.parametrize("given", ["", "wrong", None])
async def test_CSRF_without_the_session_s_token_nothing_is_ordered(
    api: Api, operator: httpx2.AsyncClient, worker: str, given: str | None
) -> None:
    await sign_in(api, Role.ADMIN)
    form = {"mode": "paused"} | ({} if given is None else {"csrf": given})
    answer = await api.client().post("/workers/w/mode", data=form, headers=OURS)
    assert answer.status_code == 403
    view = (await operator.get(f"{WORKERS}/{worker}")).json()
    assert (view["mode"], view["mode_by"]) == ("active", None)


async def test_an_operator_s_order_is_done_in_his_name(api: Api, worker: str) -> None:
    await sign_in(api, Role.OPERATOR)
    form = {"csrf": await csrf(api), "mode": "paused", "reason": "lunch"}
    answer = await api.client().post("/workers/w/mode", data=form, headers=OURS)
    assert (answer.status_code, answer.headers["location"]) == (303, "/workers/w")
    view = await api.until(f"/workers/{worker}", mode="paused")
    assert (view["mode"], view["mode_reason"], view["mode_by"]) == ("paused", "lunch", "a-operator")


async def test_a_lease_a_decision_and_the_reason_are_shown(
    api: Api, operator: httpx2.AsyncClient, worker: str
) -> None:
    other = {"workers": [{"name": "idle", "driver": "fake"}]}
    await operator.post(f"{WORKERS}/define", json=other)
    lease = {"worker": worker, "reason": "look at its disk", "wait_s": 600}
    assert (await operator.post("/api/v1/leases", json=lease)).is_success
    await api.settle()
    await sign_in(api, Role.VIEWER)
    fleet = (await api.client().get("/")).text
    assert "waited for by a-operator until" in fleet
    assert "look at its disk" in fleet
    shown = (await api.client().get(f"/workers/{worker}")).text
    assert "a person waits for it" in shown  # the decision to start it
    assert "look at its disk" in shown
    assert "no queued build needs it" in (await api.client().get("/workers/idle")).text


async def test_V20_the_page_warns_of_builds_that_can_act_as_the_hub_s_owner(
    api: Api, worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sign_in(api, Role.VIEWER)
    warning = "can act as the hub&#39;s owner"
    for exposed in (False, True):
        monkeypatch.setattr(api.hub.workers._controller, "is_hub_exposed", lambda _: exposed)  # noqa: B023
        for path in ("/", f"/workers/{worker}"):
            assert (warning in (await api.client().get(path)).text.replace("'", "&#39;")) is exposed


@pytest.mark.parametrize(("method", "path"), sorted(PAGES))
async def test_each_page_refuses_strangers_and_the_next_smaller_role(
    api: Api, method: str, path: str
) -> None:
    filled = re.sub(r"\{\w+\}", "0" * 26, path)
    assert (await api.client().request(method, filled)).status_code == 303
    smaller = list(Role)[: list(Role).index(PAGES[method, path])]
    if smaller:
        await sign_in(api, smaller[-1])
        refused = await api.client().request(method, filled, headers=OURS)
        assert refused.status_code == 403
        assert str(PAGES[method, path]) in refused.text


async def test_what_follows_a_page_is_told_by_status_that_the_session_is_over(api: Api) -> None:
    answer = await api.client().get("/incidents", headers={"sec-fetch-dest": "empty"})
    assert answer.status_code == 401


async def test_pages_come_with_their_headers(api: Api) -> None:
    await sign_in(api, Role.VIEWER)
    for path in ("/incidents", "/login", "/static/log.js", "/workers/nobody"):
        headers = (await api.client().get(path)).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
    assert (await api.client().get("/incidents")).headers["cache-control"] == "no-store"


@pytest.mark.parametrize("name", ["nothing", "..%2fguard.py", "%2e%2e%2frender.py"])
async def test_there_are_no_other_static_files(api: Api, name: str) -> None:
    assert (await api.client().get(f"/static/{name}")).status_code == 404


async def test_what_is_not_there_is_a_page_that_says_so(api: Api) -> None:
    await sign_in(api, Role.VIEWER)
    answer = await api.client().get("/workers/%3Cscript%3E")
    assert answer.status_code == 404
    assert "&lt;script&gt;" in answer.text
    assert "<script>" not in answer.text


def test_a_session_ends_after_an_hour_of_nothing_and_after_twelve_in_all() -> None:
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    cookie = sessions.open("token")
    assert sessions.find(cookie) is not None
    assert sessions.find(cookie + "x") is None
    now[0] = IDLE_S + 1
    assert sessions.find(cookie) is None
    cookie = sessions.open("token")
    while now[0] < LIFE_S + IDLE_S:
        now[0] += IDLE_S - 1
        sessions.find(cookie)
    assert sessions.find(cookie) is None


def test_V15_sessions_are_bounded() -> None:
    sessions = Sessions(lambda: 0.0)
    cookies = [sessions.open("token") for _ in range(SESSIONS + 5)]
    assert len(sessions._open) == SESSIONS
    assert sessions.find(cookies[-1]) is not None


def test_a_session_shows_neither_its_token_nor_its_cookie() -> None:
    sessions = Sessions(lambda: 0.0)
    cookie = sessions.open("hst_secret")
    assert "hst_secret" not in repr(sessions.find(cookie))
    assert cookie not in repr(sessions._open)
