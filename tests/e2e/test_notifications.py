"""A real hub tells people: by a real mail server and a real receiver, whatever dies in between."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, authority
from e2e.api import Api, until
from e2e.hub_process import HubProcess
from hub.notify.servers import PASSWORD, USER, MailServer, mail_server, serving

ANN = "ann@example.org"


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return authority(tmp_path)


@pytest.fixture
async def mail(ca: Authority) -> AsyncIterator[MailServer]:
    async with mail_server(ca.server_context("localhost", "127.0.0.1")) as made:
        yield made


@pytest.fixture
def make_telling_hub(tmp_path: Path, ca: Authority) -> Any:
    made: list[HubProcess] = []

    def make(smtp_port: int, **more: str) -> HubProcess:
        state_dir = tmp_path / "hub"
        (state_dir / "secrets").mkdir(parents=True, mode=0o700)
        (state_dir / "secrets" / "smtp").write_text(PASSWORD)
        (state_dir / "secrets" / "hook").write_text("battery staple")
        settings = {
            "smtp_host": "localhost",
            "smtp_port": str(smtp_port),
            "smtp_user": USER,
            "smtp_password": "file:smtp",
            "smtp_from": "hostler@example.org",
            "smtp_ca_file": str(ca.ca_file),
        }
        made.append(HubProcess(state_dir, None, **(settings | more)))
        return made[-1]

    yield make
    for hub in made:
        hub.close()


async def arrived(*places: list[Any]) -> None:
    async def asked() -> bool:
        return all(places)

    await until(asked)


async def lose_a_worker(api: Api) -> str:
    """A permanent worker whose agent never comes is missing after a second."""
    await api.define("gone", driver="permanent", missing_timeout=1, notify_on_missing=[ANN])
    page = await until(lambda: api.get("/incidents?open=true"), lambda page: page["items"])
    return str(page["items"][0]["id"])


async def test_a_missing_worker_is_told_by_mail_and_webhook(
    mail: MailServer, ca: Authority, make_telling_hub: Any
) -> None:
    calls: list[tuple[str, bytes]] = []

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = await reader.readexactly(int(fields["Content-Length"]))
        calls.append((fields["Hostler-Signature"], body))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await writer.drain()

    async with serving(receive, ca.server_context("localhost")) as port:
        hub = make_telling_hub(
            mail.port,
            notify_webhooks=f"https://localhost:{port}/in",
            notify_webhook_secret="file:hook",
            notify_webhook_allow="localhost",
            notify_webhook_ca_file=str(ca.ca_file),
        )
        await asyncio.to_thread(hub.start)
        async with Api(hub.url, hub.token) as api:
            incident = await lose_a_worker(api)
            await arrived(mail.mails, calls)
            view = await api.get(f"/incidents/{incident}")
            worker = await api.worker("gone")
    assert worker["incidents"] == {"missing": incident}
    assert {(each["channel"], each["about"]) for each in view["deliveries"]} == {
        ("mail", "opened"),
        ("webhook", "opened"),
    }
    assert mail.mails[0]["Subject"] == "[hostler] gone: missing"
    assert mail.envelopes[0][1] == [ANN]
    signature, body = calls[0]
    at, _, given = signature.removeprefix("t=").partition(",v1=")
    right = hmac.new(b"battery staple", f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    assert given == right
    assert json.loads(body)["incident"]["id"] == incident


async def test_K12_D7_what_a_killed_hub_could_not_send_its_successor_sends_once(
    mail: MailServer, make_telling_hub: Any
) -> None:
    """The mail server refuses while the first hub lives, which dies by kill -9."""
    mail.refusal = "451 try later"
    hub = make_telling_hub(mail.port)
    await asyncio.to_thread(hub.start)
    async with Api(hub.url, hub.token) as api:
        incident = await lose_a_worker(api)
        view = await until(
            lambda: api.get(f"/incidents/{incident}"),
            lambda view: view["deliveries"][0]["last_error"],
        )
        (waiting,) = view["deliveries"]
        assert "451" in waiting["last_error"]
        assert (await api.get("/status"))["incidents"] == {"open": 1, "undelivered": 1}
    await asyncio.to_thread(hub.kill)
    mail.refusal = None
    await asyncio.to_thread(hub.start)
    async with Api(hub.url, hub.token) as api:
        retried = await api.client.post(f"/api/v1/deliveries/{waiting['id']}/retry", json={})
        assert retried.status_code in {200, 409}  # it was due, and is sent already
        await arrived(mail.mails)
        assert mail.mails[0]["Message-ID"] == f"<{waiting['id']}@example.org>"
        await until(
            lambda: api.get(f"/incidents/{incident}"),
            lambda view: view["notification"] == "sent",
        )
        assert len((await api.get("/incidents"))["items"]) == 1
        assert (await api.get("/status"))["incidents"] == {"open": 1, "undelivered": 0}
    assert len(mail.mails) == 1
