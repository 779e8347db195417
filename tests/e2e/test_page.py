"""The page in a real browser, on a real hub with a real agent: what a worker says stays text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from peers import chromium

if TYPE_CHECKING:
    from e2e.api import Api
    from e2e.gates import Gate
    from e2e.hub_process import HubProcess
    from playwright.async_api import Page

pytestmark = pytest.mark.peer("chromium")

XSS = [
    "<script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "<svg/onload=window.pwned=1>",
    '"><script>window.pwned=1</script>',
    "' onmouseover='window.pwned=1",
    "</pre></div><iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "javascript:window.pwned=1",
    "<a href=javascript:window.pwned=1>x</a>",
    "{{ 7*7 }}${7*7}<%= 7*7 %>",
    "\x1b]8;;javascript:window.pwned=1\x07link\x1b]8;;\x07",
    "\x1b[31m<b onclick=window.pwned=1>red</b>\x1b[0m",
    "\u202e<script>window.pwned=1</script>",
    "<scr\0ipt>window.pwned=1</scr\0ipt>",
    "--><style>@import 'https://evil.example'</style>",
]


class Visitor:
    """A browser's page, signed in; notes whatever went wrong in it."""

    def __init__(self, page: Page, hub: HubProcess) -> None:
        self.page, self.hub = page, hub
        self.troubles: list[str] = []
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("dialog", lambda dialog: self.troubles.append(dialog.message))
        page.on("console", self._said)
        page.on("request", self._asked)

    def _said(self, message: Any) -> None:
        if message.type == "error":
            self.troubles.append(message.text)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.hub.url, "data:")):
            self.troubles.append(f"asked for {request.url}")

    async def sign_in(self) -> None:
        await self.page.goto(self.hub.url + "/")
        await self.page.fill("#token", self.hub.token)
        await self.page.click("text=Sign in")
        await self.page.wait_for_selector("table")

    async def see(self, path: str) -> None:
        await self.page.goto(self.hub.url + path)

    async def text(self, selector: str = "main") -> str:
        return await self.page.inner_text(selector)

    async def until(self, text: str, selector: str = "main") -> None:
        """Wait until the page says so by itself."""
        await self.page.wait_for_function(
            "([where, what]) => document.querySelector(where)?.innerText.includes(what)",
            arg=[selector, text],
            timeout=60_000,
        )


@pytest.fixture
async def visitor(shared_hub: HubProcess) -> AsyncIterator[Visitor]:
    async with chromium.browser() as browser:
        page = await browser.new_page()
        page.set_default_timeout(60_000)
        made = Visitor(page, shared_hub)
        await made.sign_in()
        yield made
        assert made.troubles == []
        assert await made.page.evaluate("window.pwned") is None


async def test_the_fleet_is_shown_with_what_is_wrong(visitor: Visitor, api: Api) -> None:
    await api.define("page-a", labels=["page"])
    await api.mode("page-a", "paused", "a new kernel")
    await visitor.see("/?label=page")
    shown = await visitor.text()
    assert "page-a" in shown
    assert "paused by admin: a new kernel" in shown
    cookies = await visitor.page.context.cookies()
    assert [(each["httpOnly"], each["sameSite"]) for each in cookies] == [(True, "Lax")]
    assert await visitor.page.evaluate("document.cookie") == ""


async def test_a_worker_is_paused_and_resumed_by_hand(visitor: Visitor, api: Api) -> None:
    await api.define("page-b")
    await visitor.see("/workers/page-b")
    await visitor.page.fill("input[name=reason]", "look at its disk")
    await visitor.page.click("text=Pause")
    await visitor.until("look at its disk")
    assert (await api.worker("page-b"))["mode"] == "paused"
    await visitor.page.click("text=Resume")
    await visitor.page.wait_for_selector("button:has-text('Pause')")
    assert (await api.worker("page-b"))["mode"] == "active"


async def test_a_log_is_followed_as_it_grows_and_the_build_s_end_is_seen(
    visitor: Visitor, api: Api, make_gate: Any
) -> None:
    gate: Gate = make_gate()
    await api.define("page-c")
    build = await api.submit(gate.command, worker="page-c")
    await gate.entered()
    await gate.send(b"\x1b[1;31mred\x1b[0m line\n")
    await visitor.see(f"/builds/{build}")
    await visitor.until("red line", ".log pre")
    assert await visitor.page.inner_text(".log pre span.f1.b") == "red"
    await visitor.page.evaluate("document.querySelector('.log').dataset.same = 'yes'")
    await gate.send(b"the end\n")
    gate.open()
    await visitor.until("the end", ".log pre")
    await visitor.until("success", ".title")
    assert await visitor.page.get_attribute(".log", "data-same") == "yes"  # it was not redrawn
    assert "red line\n" in await visitor.text(".log pre")


async def test_XSS_nothing_that_is_said_anywhere_becomes_a_page(visitor: Visitor, api: Api) -> None:
    """Log, names, reasons, descriptions: each value of the corpus is shown as text."""
    await api.define("page-x", description=XSS[0], properties={"evil": XSS[1]})
    data = "\n".join(XSS)
    build = await api.submit(
        {"name": XSS[1], "command": ["cat"], "initial_stdin": data},
        {"name": XSS[3], "command": ["sh", "-c", "cat; exit 1"], "initial_stdin": data},
        name=XSS[0],
        worker="page-x",
        properties={"evil": XSS[2]},
    )
    await api.ended(build)
    await api.mode("page-x", "paused", XSS[5])
    waiting = await api.submit(["true"], name=XSS[4], worker="page-x")
    for path in ("/", "/workers/page-x", "/builds", f"/builds/{build}", f"/builds/{waiting}"):
        await visitor.see(path)
        await visitor.page.wait_for_load_state("networkidle")
        found = await visitor.page.evaluate(
            "document.querySelectorAll('main :is(script, img, svg, iframe, style, b[onclick],"
            " a[href^=javascript], [onerror], [onload], [onmouseover])').length"
        )
        assert found == 0, path
    await visitor.see(f"/builds/{build}")
    await visitor.until(XSS[-1], ".log pre")
    log = await visitor.text(".log pre")
    for each in (*XSS[:8], "<b onclick=window.pwned=1>red</b>"):
        assert each in log
    assert "]8;;" not in log
    assert XSS[0] in await visitor.text("h1")
    await visitor.see("/workers/page-x")
    assert XSS[5] in await visitor.text()
    await api.post(f"/builds/{waiting}/cancel", {})
    await api.mode("page-x", "active")


async def test_a_log_s_escapes_are_read_across_pieces_and_unknown_ones_dropped(
    visitor: Visitor,
) -> None:
    """The screen of log.js itself, fed by single characters and at once: the same is shown."""
    await visitor.see("/builds")
    text = (
        "plain\r\n\x1b[32mgreen\x1b[0m\x1b[38;5;208mx\x1b[0m\x1b[2Jy\x1b]0;title\x07z\n"
        "10%\r50%\r100%\n\x1b(B\x1bM\x1b\x07\x08tab\there\x9b31m \U0001f600 \x1b[999999m.\n"
    )
    source = (await asyncio.to_thread(_log_js)).replace(
        "  const logs = new Map();", "  window.Screen_ = Screen;\n  const logs = new Map();"
    )
    await visitor.page.evaluate(source)
    shown = await visitor.page.evaluate(
        """(text) => [[text], [...text]].map((pieces) => {
            const pre = document.createElement("pre");
            const screen = new window.Screen_(pre);
            for (const piece of pieces) screen.write(piece);
            return [pre.textContent, pre.querySelectorAll(".f2").length > 0];
        })""",
        text,
    )
    expected = "plain\ngreenxyz\n100%\ntab\there31m \U0001f600 .\n\n"
    assert shown == [[expected, True], [expected, True]]


def _log_js() -> str:
    from hostler_hub.web.page.render import STATIC

    return (STATIC / "log.js").read_text()
