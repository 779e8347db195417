"""Mail over SMTP with TLS and a login. Each mail has a text and an HTML part."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

import aiosmtplib

from hostler_hub.notify.errors import NotSent
from hostler_hub.notify.message import Message
from hostler_hub.notify.templates import Templates
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.errors import SecretRefused
from hostler_hub.runtime.notify_settings import ADDRESS, Smtp
from hostler_hub.runtime.secrets import Secrets

DEADLINE_S = 10.0
_SUBJECT_SIZE = 200

# What concerns this message alone; after anything else the server gets nothing more for now.
_OF_THE_MESSAGE = (
    aiosmtplib.SMTPRecipientsRefused,
    aiosmtplib.SMTPRecipientRefused,
    aiosmtplib.SMTPSenderRefused,
    aiosmtplib.SMTPDataError,
)


class Mail:
    """The channel `mail`."""

    def __init__(self, smtp: Smtp, secrets: Secrets, templates: Templates, clock: Clock) -> None:
        self._smtp = smtp
        self._secrets = secrets
        self._templates = templates
        self._clock = clock

    async def send(self, message: Message) -> None:
        """Hand the message to the mail server. Raises NotSent if that fails or takes longer than 10
        s.
        """
        if not self._smtp.host:
            raise NotSent("no mail server is configured (smtp_host)", unreachable=True)
        mail = self.compose(message)
        try:
            # One deadline around everything: a tarpit answers each line just in time (D7).
            async with asyncio.timeout(DEADLINE_S):
                await self._hand_over(mail)
        except TimeoutError:
            reason = f"{self._smtp.host} took longer than {DEADLINE_S:g} s"
            raise NotSent(reason, unreachable=True) from None
        except (aiosmtplib.SMTPException, OSError, SecretRefused) as error:
            of_the_message = isinstance(error, _OF_THE_MESSAGE)
            reason = f"{self._smtp.host}: {_error_text(error)}"
            raise NotSent(reason, unreachable=not of_the_message) from error

    def compose(self, message: Message) -> EmailMessage:
        """Compose the mail. Line ends are removed from headers, whatever text they are made of."""
        if not ADDRESS.fullmatch(message.recipient):
            raise NotSent(f"{message.recipient!r} is no mail address", unreachable=False)
        words = self._templates.render(message)
        mail = EmailMessage(policy=SMTP)
        mail["From"] = Address("Hostler", addr_spec=self._smtp.sender)
        mail["To"] = Address(addr_spec=message.recipient)
        mail["Subject"] = _header(words.subject)
        mail["Date"] = format_datetime(datetime.fromtimestamp(self._clock.now(), UTC))
        mail["Message-ID"] = self._message_id(message.id)
        if message.answers is not None:
            mail["In-Reply-To"] = self._message_id(message.answers)
            mail["References"] = self._message_id(message.answers)
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(_body(words.text))
        mail.add_alternative(_body(words.html), subtype="html")
        return mail

    def _message_id(self, message: str) -> str:
        """The Message-ID: the same for each sending of a message, so that mail programs show a
        duplicate once.
        """
        return f"<{message}@{self._smtp.sender.partition('@')[2]}>"

    async def _hand_over(self, mail: EmailMessage) -> None:
        smtp = self._smtp
        password = None
        if smtp.password is not None:
            password = await asyncio.to_thread(self._secrets.resolve, smtp.password)
        await aiosmtplib.send(
            mail,
            hostname=smtp.host,
            port=smtp.port,
            username=smtp.user or None,
            password=password,
            use_tls=smtp.tls == "tls",
            # Required, not tried: who strips it from the server's answer gets no mail to read.
            start_tls=smtp.tls == "starttls",
            tls_context=await asyncio.to_thread(_tls, smtp.ca_file),
            local_hostname=smtp.sender.partition("@")[2],
            timeout=DEADLINE_S,
        )


def _tls(ca_file: str) -> ssl.SSLContext:
    """The TLS context. It is made for each mail, so that a renewed CA file needs no restart."""
    return ssl.create_default_context(cafile=ca_file or None)


def _header(text: str) -> str:
    """The text as one line of printable characters."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(line.split())[:_SUBJECT_SIZE]


def _body(text: str) -> str:
    """The text without lone surrogates, which UTF-8 cannot encode, and without control
    characters.
    """
    kept = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
    return kept.encode("utf-8", "replace").decode()


def _error_text(error: Exception) -> str:
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    code = getattr(error, "code", None)
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return f"{code} {line}" if code else line
