"""The settings of notifications: recipients, mail server and webhooks, from `HOSTLER_SMTP_*` and
`HOSTLER_NOTIFY_*`.

Passwords and secrets are given by reference only, `env:HOSTLER_SECRET_X` or `file:NAME` (see
secrets.py). No message repeats more of a webhook's URL than its host: the path may be a secret
(V14).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from hostler_hub.errors import SettingsError

if TYPE_CHECKING:
    from hostler_hub.specs.secret_ref import SecretRef

ADDRESS = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"
)
MAILS_PER_HOUR = 20

_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Smtp:
    """The mail server. An empty host: none is configured."""

    host: str = ""
    port: int = 0
    tls: str = "starttls"  # or "tls" from the first byte, or "none"
    user: str = ""
    password: SecretRef | None = None
    sender: str = ""
    ca_file: str = ""


@dataclass(frozen=True, slots=True)
class Webhooks:
    """URLs by name, the secret that signs the calls, and the private hosts and networks that they
    may call.
    """

    urls: Mapping[str, str]
    secret: SecretRef | None = None
    allow: tuple[str, ...] = ()
    ca_file: str = ""


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """All settings of notifications. `mail`: addresses that receive every incident, beside those
    that a worker names.
    """

    mail: tuple[str, ...] = ()
    smtp: Smtp = Smtp()
    webhooks: Webhooks = Webhooks({})
    templates: str = ""
    mails_per_hour: int = MAILS_PER_HOUR

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Raises SettingsError with one clear line."""
        mail = _split(environ, "NOTIFY_MAIL")
        for address in mail:
            if not ADDRESS.fullmatch(address):
                raise SettingsError(f"notify_mail: {address!r} is no mail address")
        smtp = _smtp(environ)
        if mail and not smtp.host:
            raise SettingsError("notify_mail: needs smtp_host, the server that takes the mail")
        per_hour = environ.get("HOSTLER_NOTIFY_MAILS_PER_HOUR") or str(MAILS_PER_HOUR)
        if not per_hour.isdecimal() or not 1 <= int(per_hour) <= 10_000:
            raise SettingsError("notify_mails_per_hour: must be a whole number from 1 to 10000")
        return cls(
            mail=mail,
            smtp=smtp,
            webhooks=_webhooks(environ),
            templates=environ.get("HOSTLER_NOTIFY_TEMPLATES", ""),
            mails_per_hour=int(per_hour),
        )


def webhook_name(url: str) -> str:
    """The name of a webhook in logs and views: its host, and a digest to tell several of one host
    apart.
    """
    return f"{urlsplit(url).hostname}#{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def _smtp(environ: Mapping[str, str]) -> Smtp:
    host, tls = environ.get("HOSTLER_SMTP_HOST", ""), environ.get("HOSTLER_SMTP_TLS", "starttls")
    if not host:
        return Smtp()
    if not _HOST.fullmatch(host) and not _is_address(host):
        raise SettingsError(f"smtp_host: {host!r} is no host name")
    if tls not in _PORTS:
        raise SettingsError(f"smtp_tls: {tls!r} is none of {', '.join(_PORTS)}")
    port = environ.get("HOSTLER_SMTP_PORT") or str(_PORTS[tls])
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise SettingsError(f"smtp_port: {port!r} is not between 1 and 65535")
    user, password = environ.get("HOSTLER_SMTP_USER", ""), _secret(environ, "SMTP_PASSWORD")
    if bool(user) != (password is not None):
        raise SettingsError("smtp_user: a login needs both smtp_user and smtp_password")
    if user and tls == "none" and host not in _LOOPBACK:
        raise SettingsError("smtp_tls: none would carry the password in the clear; use starttls")
    sender = environ.get("HOSTLER_SMTP_FROM", "")
    if not ADDRESS.fullmatch(sender):
        raise SettingsError("smtp_from: must be the mail address that the hub writes from")
    return Smtp(
        host, int(port), tls, user, password, sender, environ.get("HOSTLER_SMTP_CA_FILE", "")
    )


def _webhooks(environ: Mapping[str, str]) -> Webhooks:
    urls = {}
    for number, url in enumerate(_split(environ, "NOTIFY_WEBHOOKS"), start=1):
        _check_url(url, number)
        urls[webhook_name(url)] = url
    secret = _secret(environ, "NOTIFY_WEBHOOK_SECRET")
    if urls and secret is None:
        raise SettingsError("notify_webhook_secret: is needed to sign the calls of notify_webhooks")
    allow = _split(environ, "NOTIFY_WEBHOOK_ALLOW")
    for each in allow:
        if not _HOST.fullmatch(each) and not _is_network(each):
            raise SettingsError(f"notify_webhook_allow: {each!r} is neither a host nor a network")
    return Webhooks(urls, secret, allow, environ.get("HOSTLER_NOTIFY_WEBHOOK_CA_FILE", ""))


def _check_url(url: str, number: int) -> None:
    try:
        parts = urlsplit(url)
        wrong = parts.scheme != "https" or not parts.hostname or parts.port == 0
        wrong = wrong or bool(parts.username or parts.password or parts.fragment)
    except ValueError:
        wrong = True
    if wrong or not url.isascii() or not url.isprintable():
        raise SettingsError(
            f"notify_webhooks: number {number} is no https:// URL without user and fragment"
        )


def _secret(environ: Mapping[str, str], name: str) -> SecretRef | None:
    text = environ.get(f"HOSTLER_{name}", "")
    if not text:
        return None
    # A look at the hub's status need not load what checks it.
    from pydantic import ValidationError  # noqa: PLC0415

    from hostler_hub.specs.secret_ref import SecretRef  # noqa: PLC0415

    kind, _, value = text.partition(":")
    try:
        return SecretRef.model_validate({kind: value})
    except ValidationError:
        # The text is not repeated: somebody may have put the secret itself there.
        raise SettingsError(
            f"{name.lower()}: must be a reference, env:HOSTLER_SECRET_NAME or file:NAME"
        ) from None


def _split(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    text = environ.get(f"HOSTLER_{name}", "")
    return tuple(dict.fromkeys(text.replace(",", " ").split()))


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _is_address(text: str) -> bool:
    return "/" not in text and _is_network(text)
