"""Mail to a real server: TLS, login, what it refuses, and what nobody may put into a header."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from hub.notify.conftest import message
from hub.notify.servers import USER, MailServer, mail_server, serving

from hostler_hub.notify import mail as mail_module
from hostler_hub.notify.errors import NotSent
from hostler_hub.notify.mail import Mail
from hostler_hub.notify.message import Message
from hostler_hub.notify.templates import Templates
from hostler_hub.runtime.notify_settings import Smtp
from hostler_hub.runtime.secrets import SecretRef, Secrets
from hostler_hub.runtime.virtual_clock import VirtualClock

HUB = {"id": "01K8Z9Q8Y3N6V4T2R0P9M7K5J3", "url": "https://hub.example.org"}


@pytest.fixture
async def server(ca: Authority) -> AsyncIterator[MailServer]:
    async with mail_server(ca.server_context("127.0.0.1", "localhost")) as made:
        yield made


def channel(secrets: Secrets, ca: Authority, port: int, **changes: Any) -> Mail:
    options: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "user": USER,
        "password": SecretRef(file="smtp"),
        "sender": "hostler@example.org",
        "ca_file": str(ca.ca_file),
    }
    smtp = Smtp(**(options | changes))
    return Mail(smtp, secrets, Templates("", HUB), VirtualClock())


async def refusal(mail: Mail, what: Message | None = None) -> NotSent:
    with pytest.raises(NotSent) as caught:
        await mail.send(what or message())
    return caught.value


async def test_a_mail_arrives_by_starttls_and_login_as_text_and_html(
    server: MailServer, secrets: Secrets, ca: Authority
) -> None:
    await channel(secrets, ca, server.port).send(message())
    (mail,) = server.mails
    assert server.encrypted == [True]
    assert server.envelopes == [("hostler@example.org", ["ann@example.org"])]
    assert mail["Subject"] == "[hostler] docker-07: missing"
    assert mail["To"] == "ann@example.org"
    assert mail["Message-ID"] == "<01K8Z9Q8Y3N6V4T2R0P9M7K5J9@example.org>"
    assert mail["Auto-Submitted"] == "auto-generated"
    text = mail.get_body(("plain",))
    html = mail.get_body(("html",))
    assert text is not None
    assert html is not None
    for part in (text.get_content(), html.get_content()):
        assert "did not attach within 120 s" in part
        assert f"{HUB['url']}/incidents/01K8Z9Q8Y3N6V4T2R0P9M7K5J3" in part
        assert "line 1" in part


async def test_tls_from_the_first_byte(secrets: Secrets, ca: Authority) -> None:
    async with mail_server(ca.server_context("localhost"), implicit=True) as server:
        mail = channel(secrets, ca, server.port, host="localhost", tls="tls")
        await mail.send(message("test"))
        assert server.mails[0]["Subject"] == "[hostler] This is a test"


async def test_what_follows_up_refers_to_what_it_follows(
    server: MailServer, secrets: Secrets, ca: Authority
) -> None:
    first = message("closed", open=False, closed_at="2026-01-02T04:00:00.000Z")
    told = Message("ID2", first.recipient, "closed", first.notices, answers="ID1")
    await channel(secrets, ca, server.port).send(told)
    assert server.mails[0]["In-Reply-To"] == "<ID1@example.org>"
    assert server.mails[0]["Subject"] == "[hostler] docker-07: missing is over"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ca_file": ""}, "CERTIFICATE_VERIFY_FAILED"),
        ({"host": "localhost", "user": "other"}, "535"),
        ({"host": "localhost", "password": SecretRef(file="nothing")}, "secret file nothing"),
        ({"host": "localhost", "tls": "tls"}, "localhost"),
        ({"host": ""}, "no mail server"),
    ],
)
async def test_a_server_that_cannot_be_used_is_unreachable(
    server: MailServer, secrets: Secrets, ca: Authority, changes: dict[str, Any], says: str
) -> None:
    failure = await refusal(channel(secrets, ca, server.port, **changes))
    assert failure.unreachable
    assert says in str(failure)
    assert "correct horse" not in str(failure)
    assert server.mails == []


async def test_a_name_that_is_not_the_certificate_s_is_refused(
    secrets: Secrets, ca: Authority
) -> None:
    async with mail_server(ca.server_context("other.example.org")) as server:
        failure = await refusal(channel(secrets, ca, server.port))
        assert "CERTIFICATE_VERIFY_FAILED" in str(failure)


async def test_a_server_without_starttls_gets_no_password_and_no_mail(
    secrets: Secrets, ca: Authority
) -> None:
    """Somebody in between strips it from the answer: better no mail than one that he reads."""
    seen = bytearray()

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail ESMTP\r\n")
        while line := await reader.readline():
            seen.extend(line)
            writer.write(
                b"250-mail\r\n250 AUTH PLAIN LOGIN\r\n" if b"EHLO" in line else b"500 no\r\n"
            )

    async with serving(plain) as port:
        failure = await refusal(channel(secrets, ca, port))
    assert failure.unreachable
    assert b"AUTH" not in seen
    assert b"MAIL FROM" not in seen


@pytest.mark.parametrize("reply", ["451 try later", "554 looks like spam"])
async def test_D7_a_message_that_is_refused_is_not_the_server_s_end(
    server: MailServer, secrets: Secrets, ca: Authority, reply: str
) -> None:
    server.refusal = reply
    failure = await refusal(channel(secrets, ca, server.port))
    assert not failure.unreachable
    assert reply in str(failure)


async def test_D7_a_recipient_that_is_refused_is_not_the_server_s_end(
    server: MailServer, secrets: Secrets, ca: Authority
) -> None:
    server.rejects = "550 no such user"
    failure = await refusal(channel(secrets, ca, server.port))
    assert not failure.unreachable
    assert "no such user" in str(failure)


async def test_D7_a_dead_server_is_unreachable(
    secrets: Secrets, ca: Authority, unused_tcp_port: int
) -> None:
    failure = await refusal(channel(secrets, ca, unused_tcp_port))
    assert failure.unreachable


async def test_D7_a_tarpit_is_left_after_the_deadline(
    secrets: Secrets, ca: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each piece comes in time by itself; it is the whole that takes too long."""
    monkeypatch.setattr(mail_module, "DEADLINE_S", 0.2)

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"220-patience\r\n")
            await asyncio.sleep(0.02)  # dripping is what it is about

    async with serving(drip) as port:
        failure = await refusal(channel(secrets, ca, port))
    assert failure.unreachable
    assert "took longer" in str(failure)


async def test_nothing_that_a_worker_says_gets_into_the_headers(
    server: MailServer, secrets: Secrets, ca: Authority, tmp_path: Path
) -> None:
    evil = "w\r\nBcc: eve@example.org\r\n\r\n<script>alert(1)</script>\x1b[31m\ud800"
    mail = channel(secrets, ca, server.port)
    await mail.send(message(worker=evil, reason=evil, evidence={"console": evil}))
    (arrived,) = server.mails
    assert "Bcc" not in arrived
    assert "\n" not in arrived["Subject"]
    html = arrived.get_body(("html",))
    text = arrived.get_body(("plain",))
    assert html is not None
    assert text is not None
    assert "<script>" not in html.get_content()
    assert "&lt;script&gt;" in html.get_content()
    assert "\x1b" not in text.get_content()


@pytest.mark.parametrize("address", ["", "ann", "a@b\r\nBcc: eve@x", "a b@c", "@c", "ann@-x"])
async def test_what_is_no_address_is_refused_before_anything_is_sent(
    server: MailServer, secrets: Secrets, ca: Authority, address: str
) -> None:
    told = Message("ID", address, "opened", message().notices)
    failure = await refusal(channel(secrets, ca, server.port), told)
    assert not failure.unreachable


async def test_a_digest_lists_everything(
    server: MailServer, secrets: Secrets, ca: Authority
) -> None:
    await channel(secrets, ca, server.port).send(message("digest", notices=7))
    (mail,) = server.mails
    assert mail["Subject"] == "[hostler] 7 notices about docker-07"
    text = mail.get_body(("plain",))
    assert text is not None
    assert text.get_content().count("docker-07: missing") == 7
