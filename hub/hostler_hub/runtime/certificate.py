"""The certificate that the hub shows its clients; it is renewed while the hub runs.

When the files are replaced on disk, new connections use the new certificate within a minute. One
that cannot be read is reported and the old one kept (D8). For users without a certificate
authority, ``certificate_authority.make()`` creates one that signs for this hub alone.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from hostler_hub.errors import SettingsError
from hostler_hub.runtime.ownership import check_secret

if TYPE_CHECKING:
    from hostler_hub.runtime.settings import Settings

_log = structlog.get_logger(__name__)

LOOK_EVERY_S = 60.0


class Certificate:
    """The hub's certificate and key, and the TLS context that uses them."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises SettingsError if the files cannot be used."""
        self._certificate = certificate
        self._key = key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._seen = self._stamp()
        try:
            with self._key.open("rb") as file:
                check_secret(self._key, file.fileno())
            self._load()
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"tls_certificate {certificate}: {_reason(error)}") from error

    @classmethod
    def of(cls, settings: Settings) -> Certificate | None:
        """The certificate that the settings name; None without TLS."""
        if not settings.tls_certificate:
            return None
        return cls(Path(settings.tls_certificate), Path(settings.tls_key))

    async def watch(self, every_s: float = LOOK_EVERY_S) -> None:
        """Call renew() every ``every_s`` seconds for as long as the hub runs."""
        while True:
            await asyncio.sleep(every_s)
            self.renew()

    def renew(self) -> bool:
        """Load the files again if they have changed. Returns whether new ones are in use."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            self._load()
        except (OSError, ssl.SSLError) as error:
            _log.error(
                "certificate not renewed", file=str(self._certificate), reason=_reason(error)
            )
            return False
        _log.info("certificate renewed", file=str(self._certificate))
        return True

    def _load(self) -> None:
        # Tried on another context first: a pair that does not fit must not break this one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._certificate, self._key)
        self.context.load_cert_chain(self._certificate, self._key)

    def _stamp(self) -> tuple[float, ...]:
        return tuple(
            each.stat().st_mtime if each.exists() else 0.0
            for each in (self._certificate, self._key)
        )


def _reason(error: OSError) -> str:
    return getattr(error, "strerror", None) or str(error)
