"""The hub's settings: its state directory, its address, its deadlines.

Every field can come from the environment as `HOSTLER_<FIELD>` in capitals; the command line wins. A
wrong value raises SettingsError with one clear line. No message ever repeats a database URL, which
may hold a password (V14).
"""

import dataclasses
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from hostler_hub.errors import SettingsError
from hostler_hub.runtime import database_url, docker_privileges
from hostler_hub.runtime.notify_settings import NotifySettings

_SCHEMES = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}


@dataclass(frozen=True)
class Settings:
    """What an operator may choose. `_s` fields are seconds.

    `port` 0 lets the system choose; `hub.json` in the state directory tells which it was.
    `database_url` empty means `hub.sqlite3` in the state directory; afterwards a SQLAlchemy URL.
    `public_url` is where agents on other machines reach the hub, when that is not `host:port` (a
    proxy with TLS in front of it). `secrets_dir` holds what definitions name by `{"file": NAME}`;
    `build_secrets_dir` what builds name, and their policy.
    With `tls_certificate` and `tls_key` (PEM files) the hub speaks TLS only; `tls_ca` is the bundle
    that those who call it should trust, where that is not the system's.
    `docker_allow` names what containers may have of their machine (`docker_privileges.py`).
    `notify` is who is told of incidents; see notify/settings.py for its variables.
    """

    state_dir: Path
    host: str = "127.0.0.1"
    port: int = 8010
    database_url: str = field(default="", repr=False)
    log_level: str = "info"
    public_url: str = ""
    secrets_dir: str = ""
    build_secrets_dir: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    docker_allow: str = ""

    lease_ttl_s: float = 300.0
    ping_interval_s: float = 10.0
    rival_deadline_s: float = 10.0
    request_deadline_s: float = 60.0
    unauthenticated_s: float = 10.0
    handshakes_per_s: int = 200
    go_away_grace_s: float = 10.0
    log_step_size_bytes: int = 64 * 1024 * 1024
    shutdown_deadline_s: float = 30.0
    reconcile_interval_s: float = 300.0
    decisions_keep_s: float = 30 * 24 * 3600.0
    decisions_keep_rows: int = 200_000

    notify: NotifySettings = field(default_factory=NotifySettings)

    def __post_init__(self) -> None:
        object.__setattr__(self, "state_dir", Path(self.state_dir).expanduser().absolute())
        if not self.host or any(c.isspace() or c == "/" for c in self.host):
            raise SettingsError(f"host: {self.host!r} is no address to listen on")
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"port: {self.port} is not between 0 and 65535")
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise SettingsError(
                f"log_level: {self.log_level!r} is none of debug, info, warning, error"
            )
        if self.public_url and not re.fullmatch(r"https?://[^/\s@]+/?", self.public_url):
            raise SettingsError("public_url: must be https://NAME or http://NAME:PORT")
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise SettingsError("tls_certificate and tls_key: give both or none")
        docker_privileges.parse(self.docker_allow)
        self._refuse_shared_secrets()
        object.__setattr__(self, "database_url", self._normal_database_url())
        for each in dataclasses.fields(self):
            if each.name.endswith("_s") and not 0 < getattr(self, each.name) < float("inf"):
                raise SettingsError(f"{each.name}: must be a number of seconds above 0")
        if self.decisions_keep_rows < 1:
            raise SettingsError("decisions_keep_rows: must be 1 or more")
        if self.lease_ttl_s <= 60:
            # The agent kills its tree at TTL - 30 s (A7): a smaller one leaves it no time to work.
            raise SettingsError("lease_ttl_s: must be above 60")

    def _refuse_shared_secrets(self) -> None:
        """Keep what builds may name apart from what they may not, links resolved."""
        drivers, builds = self.secrets_path.resolve(), self.build_secrets_path.resolve()
        if builds.is_relative_to(drivers) or drivers.is_relative_to(builds):
            raise SettingsError(
                f"build_secrets_dir: {builds} must be neither the drivers' directory of secrets "
                f"({drivers}) nor within it or around it, or builds could name drivers' secrets"
            )
        if self.state_dir.resolve().is_relative_to(builds):
            raise SettingsError(
                f"build_secrets_dir: {builds} must not hold the hub's state directory "
                f"({self.state_dir}), or builds could name the hub's own files"
            )

    def _normal_database_url(self) -> str:
        if not self.database_url:
            return database_url.of_file(self.state_dir / "hub.sqlite3")
        scheme, separator, rest = self.database_url.partition("://")
        if not separator or scheme not in _SCHEMES:
            raise SettingsError(
                "database_url: must be sqlite:////path/to/file or postgresql://user@host/database"
            )
        if _SCHEMES[scheme] == "sqlite":
            file = database_url.file_of(f"sqlite://{rest}")
            if file is None:
                raise SettingsError("database_url: SQLite needs a file, sqlite:////path/to/file")
            # A background hub has another working directory than who starts it.
            return database_url.of_file(file.absolute())
        _refuse_broken_postgresql(self.database_url)
        if find_spec("psycopg") is None:
            raise SettingsError(
                "database_url: psycopg, which speaks to PostgreSQL, is not installed; "
                "pip install 'hostler[postgresql]'"
            )
        return f"{_SCHEMES[scheme]}://{rest}"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], **overrides: Any) -> Self:
        """Settings from HOSTLER_* variables; an override that is not None wins.

        Raises SettingsError for a value that is not valid.
        """
        values: dict[str, Any] = {"state_dir": default_state_dir(environ)}
        values["notify"] = NotifySettings.from_environment(environ)
        for each in dataclasses.fields(cls):
            text = environ.get(f"HOSTLER_{each.name.upper()}") if each.name != "notify" else None
            if text:
                values[each.name] = _parse(
                    each.name,
                    each.type.__name__ if isinstance(each.type, type) else str(each.type),
                    text,
                )
        values.update({name: value for name, value in overrides.items() if value is not None})
        return cls(**values)

    @property
    def url(self) -> str:
        """The URL of the hub on this machine, once `port` is the one that it listens on."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        scheme = "https" if self.tls_certificate else "http"
        where = f"[{host}]" if ":" in host else host
        return f"{scheme}://{where}:{self.port}"

    @property
    def client_url(self) -> str:
        """The URL to give to clients; with TLS its host is a name of the certificate."""
        return self.public_url.rstrip("/") if self.tls_certificate and self.public_url else self.url

    @property
    def connect_url(self) -> str:
        """The URL for agents: ws:// or wss://, without a path."""
        return (self.public_url.rstrip("/") or self.url).replace("http", "ws", 1)

    @property
    def secrets_path(self) -> Path:
        """The directory of the secrets that definitions name."""
        return Path(self.secrets_dir).absolute() if self.secrets_dir else self.state_dir / "secrets"

    @property
    def build_secrets_path(self) -> Path:
        """The directory of the secrets that builds name."""
        given = self.build_secrets_dir
        return Path(given).absolute() if given else self.state_dir / "build-secrets"

    @property
    def lock_file(self) -> Path:
        """The file that is locked with flock while a hub runs."""
        return self.state_dir / "hub.lock"

    @property
    def run_file(self) -> Path:
        """JSON {"url", "pid", "started_at"} of the hub that runs, if one does."""
        return self.state_dir / "hub.json"

    @property
    def log_file(self) -> Path:
        """The log of a background hub."""
        return self.state_dir / "hub.log"

    @property
    def agents_socket(self) -> Path:
        """The Unix socket by which agents in containers of this machine reach the hub."""
        return self.state_dir / "agents" / "hub.sock"

    @property
    def admin_token_file(self) -> Path:
        """The first administrator's token, mode 0600."""
        return self.state_dir / "admin.token"

    @property
    def archive_dir(self) -> Path:
        """The directory of the agent's archives, named by their digests."""
        return self.state_dir / "agent"

    @property
    def stop_file(self) -> Path:
        """JSON {"at", "instances", "unclosed"}: what the last stop did not end (V18)."""
        return self.state_dir / "last-stop.json"

    def prepare_state_dir(self) -> None:
        """Create the state directory (mode 0700) and check that it can be written. Raises
        SettingsError.
        """
        try:
            self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Permission bits lie to root and on read-only mounts; making a file does not.
            with tempfile.TemporaryFile(dir=self.state_dir):
                pass
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise SettingsError(
                f"state directory {self.state_dir} cannot be written: {reason}"
            ) from error


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """HOSTLER_STATE_DIR, or else a directory in the XDG state home."""
    if environ.get("HOSTLER_STATE_DIR"):
        return Path(environ["HOSTLER_STATE_DIR"])
    base = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME", "~")) / ".local" / "state"
    return Path(base) / "hostler"


def _refuse_broken_postgresql(url: str) -> None:
    try:
        parts = urlsplit(url)
        broken = not parts.path.strip("/") or (parts.port is not None and parts.port < 1)
    except ValueError:
        broken = True
    if broken:
        raise SettingsError("database_url: must be postgresql://user@host:port/database")


def _parse(name: str, kind: str, text: str) -> Any:
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
    except ValueError:
        words = {"int": "a whole number", "float": "a number"}
        raise SettingsError(f"{name}: {text!r} is not {words[kind]}") from None
    return text
