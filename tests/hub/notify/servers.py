"""Real servers: mail with STARTTLS and a login, and anything else that speaks by streams.

The mail server takes, or refuses as it is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any, cast

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

USER, PASSWORD = "hub", "correct horse"


@dataclass
class MailServer:
    """What it took, and how it answers: `refusal` to the message, `rejects` recipients."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    envelopes: list[tuple[str, list[str]]] = field(default_factory=list)
    refusal: str | None = None
    rejects: str | None = None
    encrypted: list[bool] = field(default_factory=list)

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if self.rejects is not None:
            return self.rejects
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.refusal is not None:
            return self.refusal
        mail = message_from_bytes(envelope.content, policy=default)
        self.mails.append(cast(EmailMessage, mail))
        self.envelopes.append((envelope.mail_from, envelope.rcpt_tos))
        self.encrypted.append(session.ssl is not None)
        return "250 taken"

    def login(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
        right = LoginPassword(USER.encode(), PASSWORD.encode())
        return AuthResult(success=data == right, handled=data == right)


class _Session(SMTP):
    """Notes its connections: a client may leave one in the middle of TLS, where nobody ends it."""

    def __init__(self, connections: list[Any], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._connections = connections

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._connections.append(transport)


@contextlib.asynccontextmanager
async def mail_server(
    context: ssl.SSLContext, *, implicit: bool = False
) -> AsyncIterator[MailServer]:
    """Listens with STARTTLS and a login required, or with TLS from the first byte."""
    made, connections = MailServer(), list[Any]()

    def session() -> SMTP:
        with warnings.catch_warnings():
            # It does not see that the connection is encrypted from the first byte.
            warnings.simplefilter("ignore", UserWarning)
            return _Session(
                connections,
                made,
                hostname="mail.example.org",
                tls_context=None if implicit else context,
                require_starttls=not implicit,
                auth_required=True,
                auth_require_tls=not implicit,
                authenticator=made.login,
            )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(session, "127.0.0.1", 0, ssl=context if implicit else None)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for each in connections:
            each.abort()
        for _ in range(5):  # an aborted connection is closed a few turns of the loop later
            await asyncio.sleep(0)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server of any kind, as its port; what it does with a connection ends with it."""
    tasks: list[asyncio.Task[None]] = []

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        try:
            await handler(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(5):
            await asyncio.sleep(0)
