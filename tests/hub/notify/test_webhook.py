"""Webhooks to a real HTTPS server: signature, what it may answer, where it may be."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from certificates import Authority
from hub.notify.conftest import message
from hub.notify.servers import serving

from hostler_hub.notify import webhook as webhook_module
from hostler_hub.notify.egress import Egress
from hostler_hub.notify.errors import NotSent
from hostler_hub.notify.message import Message
from hostler_hub.notify.webhook import Webhook
from hostler_hub.runtime.notify_settings import Webhooks
from hostler_hub.runtime.secrets import SecretRef, Secrets
from hostler_hub.runtime.virtual_clock import VirtualClock

HUB = {"id": "01K8Z9Q8Y3N6V4T2R0P9M7K5J3", "url": "https://hub.example.org"}
NAME = "hooks.example.org#1"


@dataclass
class Receiver:
    """Notes one request's head and body, and answers as it is told."""

    answer: bytes = b"HTTP/1.1 204 No Content\r\n\r\n"
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = next(line for line in head.split("\r\n") if line.startswith("Content-Length"))
        self.heads.append(head)
        self.bodies.append(await reader.readexactly(int(size.split(":")[1])))
        writer.write(self.answer)
        await writer.drain()

    def header(self, name: str) -> str:
        (value,) = [
            line.partition(": ")[2]
            for line in self.heads[0].split("\r\n")
            if line.lower().startswith(f"{name.lower()}:")
        ]
        return value


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


def resolving(**hosts: Sequence[str]) -> Any:
    asked: list[str] = []

    async def resolve(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return hosts.get(host.replace(".", "_"), ["127.0.0.1"])

    resolve.asked = asked  # type: ignore[attr-defined]
    return resolve


def channel(
    secrets: Secrets,
    ca: Authority,
    port: int,
    allow: Sequence[str] = ("127.0.0.0/8",),
    **hosts: Any,
) -> Webhook:
    urls = {NAME: f"https://hooks.example.org:{port}/in?key=s3cr3t"}
    settings = Webhooks(urls, SecretRef(file="hook"), tuple(allow), str(ca.ca_file))
    egress = Egress(settings.allow, resolving(**hosts))
    return Webhook(settings, secrets, VirtualClock(), HUB, egress)


def to_hook(about: str = "opened") -> Message:
    told = message(about)
    return Message(told.id, NAME, about, told.notices)


async def refusal(channel: Webhook, what: Message | None = None) -> NotSent:
    with pytest.raises(NotSent) as caught:
        await channel.send(what or to_hook())
    assert "s3cr3t" not in str(caught.value)
    return caught.value


async def test_a_call_is_signed_and_says_what_happened(
    receiver: Receiver, secrets: Secrets, ca: Authority
) -> None:
    async with serving(receiver, ca.server_context("hooks.example.org")) as port:
        await channel(secrets, ca, port).send(to_hook())
    assert receiver.heads[0].startswith("POST /in?key=s3cr3t HTTP/1.1\r\n")
    assert receiver.header("Host") == f"hooks.example.org:{port}"
    assert receiver.header("Hostler-Delivery") == "01K8Z9Q8Y3N6V4T2R0P9M7K5J9"
    body = receiver.bodies[0]
    at, _, given = receiver.header("Hostler-Signature").partition(",")
    signed = at.removeprefix("t=").encode() + b"." + body
    right = hmac.new(b"battery staple", signed, hashlib.sha256).hexdigest()
    assert given == f"v1={right}"
    said = json.loads(body)
    assert said["event"] == "incident.opened"
    assert said["id"] == "01K8Z9Q8Y3N6V4T2R0P9M7K5J9"
    assert said["incident"]["worker"] == "docker-07"
    assert said["hub"] == HUB


async def test_a_test_says_that_it_is_one(
    receiver: Receiver, secrets: Secrets, ca: Authority
) -> None:
    async with serving(receiver, ca.server_context("hooks.example.org")) as port:
        await channel(secrets, ca, port).send(to_hook("test"))
    assert json.loads(receiver.bodies[0])["event"] == "test"


@pytest.mark.parametrize(
    ("answer", "unreachable"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
        (b"HTTP/1.1 302 Found\r\nLocation: https://169.254.169.254/\r\n\r\n", False),
        (b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\n\r\n", False),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", True),
        (b"HTTP/1.1 429 Too Many Requests\r\n\r\n", True),
        (b"not http at all\r\n\r\n", True),
        (b"", True),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", True),
    ],
)
async def test_D7_any_answer_but_a_plain_yes_is_a_failure(
    receiver: Receiver, secrets: Secrets, ca: Authority, answer: bytes, unreachable: bool
) -> None:
    receiver.answer = answer
    async with serving(receiver, ca.server_context("hooks.example.org")) as port:
        failure = await refusal(channel(secrets, ca, port))
    assert failure.unreachable is unreachable
    assert len(receiver.heads) == 1  # no redirect was followed


async def test_an_endless_answer_is_not_read(
    receiver: Receiver, secrets: Secrets, ca: Authority
) -> None:
    receiver.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 4096
    async with serving(receiver, ca.server_context("hooks.example.org")) as port:
        await channel(secrets, ca, port).send(to_hook())


async def test_D7_a_tarpit_is_left_after_the_deadline(
    secrets: Secrets, ca: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_module, "DEADLINE_S", 0.3)

    async def never(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with serving(never, ca.server_context("hooks.example.org")) as port:
        failure = await refusal(channel(secrets, ca, port))
    assert failure.unreachable
    assert "took longer" in str(failure)


@pytest.mark.parametrize("names", [("other.example.org",), ("127.0.0.1",)])
async def test_a_certificate_for_another_name_is_refused(
    receiver: Receiver, secrets: Secrets, ca: Authority, names: tuple[str, ...]
) -> None:
    """The connection goes to an address, the certificate must be the name's all the same."""
    async with serving(receiver, ca.server_context(*names)) as port:
        failure = await refusal(channel(secrets, ca, port))
    assert "CERTIFICATE_VERIFY_FAILED" in str(failure)
    assert receiver.heads == []


async def test_SSRF_a_private_address_is_not_called_unless_it_is_allowed(
    receiver: Receiver, secrets: Secrets, ca: Authority
) -> None:
    async with serving(receiver, ca.server_context("hooks.example.org")) as port:
        failure = await refusal(channel(secrets, ca, port, allow=()))
        assert "127.0.0.1, which is not public" in str(failure)
        assert receiver.heads == []
        await channel(secrets, ca, port, allow=("hooks.example.org",)).send(to_hook())
    assert len(receiver.heads) == 1


async def test_SSRF_a_name_is_resolved_once_so_that_it_cannot_change_in_between(
    receiver: Receiver, secrets: Secrets, ca: Authority
) -> None:
    urls = Webhooks({NAME: "https://hooks.example.org:1/"}, SecretRef(file="hook"), ("127.0.0.1",))
    resolve = resolving()
    hook = Webhook(urls, secrets, VirtualClock(), HUB, Egress(urls.allow, resolve))
    await refusal(hook)
    assert resolve.asked == ["hooks.example.org"]


async def test_a_webhook_that_is_no_longer_configured(secrets: Secrets, ca: Authority) -> None:
    told = to_hook()
    gone = Message(told.id, "gone", "opened", told.notices)
    assert "no longer" in str(await refusal(channel(secrets, ca, 1), gone))


async def test_a_secret_that_is_not_there(secrets: Secrets, ca: Authority) -> None:
    hook = channel(Secrets(secrets.directory and secrets.directory / "none"), ca, 1)
    assert "secret file hook" in str(await refusal(hook))
