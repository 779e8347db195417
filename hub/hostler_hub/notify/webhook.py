"""Webhooks: a signed POST of JSON over https, to the configured URL only.

`Hostler-Signature: t=SECONDS,v1=HEX` holds HMAC-SHA256 of `SECONDS.BODY` with the shared secret, so
that a receiver can refuse calls that are forged or old. Redirects are not followed. Only the status
of the answer is read.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

import h11

from hostler_hub import __version__
from hostler_hub.notify.egress import Egress
from hostler_hub.notify.errors import EgressForbidden, NotSent
from hostler_hub.notify.message import Message, Notice
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.errors import SecretRefused
from hostler_hub.runtime.notify_settings import Webhooks
from hostler_hub.runtime.secrets import Secrets

DEADLINE_S = 5.0
_ANSWER_SIZE_BYTES = 16 * 1024  # its head; the body is left unread


class Webhook:
    """Delivers messages by POST to one URL."""

    def __init__(
        self,
        settings: Webhooks,
        secrets: Secrets,
        clock: Clock,
        hub: Mapping[str, str],
        egress: Egress | None = None,
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._clock = clock
        self._hub = dict(hub)
        self._egress = egress or Egress(settings.allow)

    async def send(self, message: Message) -> None:
        """POST the message. Raises NotSent unless the answer is 2xx within 5 s."""
        url = self._settings.urls.get(message.recipient)
        if url is None:
            raise NotSent("this webhook is no longer in notify_webhooks", unreachable=True)
        try:
            async with asyncio.timeout(DEADLINE_S):
                status = await self._call(urlsplit(url), message)
        except TimeoutError:
            reason = f"it took longer than {DEADLINE_S:g} s"
            raise NotSent(reason, unreachable=True) from None
        except (OSError, EgressForbidden, SecretRefused, h11.ProtocolError, UnicodeError) as error:
            raise NotSent(str(error) or type(error).__name__, unreachable=True) from error
        if 300 <= status < 400:
            raise NotSent(f"it answered {status}; redirects are not followed", unreachable=False)
        if not 200 <= status < 300:
            raise NotSent(f"it answered {status}", unreachable=status >= 500 or status == 429)

    async def _call(self, url: SplitResult, message: Message) -> int:
        assert self._settings.secret is not None  # the settings see to it
        secret = await asyncio.to_thread(self._secrets.resolve, self._settings.secret)
        body = content(message, self._hub)
        at = int(self._clock.now())
        headers = [
            ("Host", url.netloc),
            ("User-Agent", f"hostler/{__version__}"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
            ("Hostler-Delivery", message.id),
            ("Hostler-Signature", signature(secret, at, body)),
        ]
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        request = h11.Request(method="POST", target=target, headers=headers)
        reader, writer = await self._connect(url)
        try:
            return await _exchange(reader, writer, request, body)
        finally:
            # Not closed in peace: a peer that answers no TLS goodbye would keep us waiting.
            writer.transport.abort()

    async def _connect(self, url: SplitResult) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = url.hostname or "", url.port or 443
        context = await asyncio.to_thread(_tls, self._settings.ca_file)
        addresses = await self._egress.addresses(host, port)
        # The first that was looked at: another is tried with the next attempt's resolving.
        return await asyncio.open_connection(addresses[0], port, ssl=context, server_hostname=host)


def signature(secret: str, at: int, body: bytes) -> str:
    """The value of the header Hostler-Signature."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def content(message: Message, hub: Mapping[str, str]) -> bytes:
    """The body: {"id", "event", "hub", "incident"}."""
    notice: Notice = message.notices[0]
    document: dict[str, Any] = {
        "id": message.id,
        "event": "test" if notice.about == "test" else f"incident.{notice.about}",
        "hub": dict(hub),
        "incident": None if notice.incident is None else dict(notice.incident),
    }
    return json.dumps(document, separators=(",", ":")).encode()


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: h11.Request, body: bytes
) -> int:
    """Send the request and return the answer's status."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_ANSWER_SIZE_BYTES)
    for part in (request, h11.Data(data=body), h11.EndOfMessage()):
        writer.write(connection.send(part) or b"")
    await writer.drain()
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            return event.status_code
        if isinstance(event, h11.ConnectionClosed):
            raise OSError("it closed the connection without an answer")
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_ANSWER_SIZE_BYTES))


def _tls(ca_file: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file or None)
