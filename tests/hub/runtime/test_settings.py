"""Settings: where they come from, and one clear line for each wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hostler_hub.errors import SettingsError
from hostler_hub.runtime.settings import Settings


def test_environment_and_overrides(tmp_path: Path) -> None:
    environ = {
        "HOSTLER_STATE_DIR": str(tmp_path),
        "HOSTLER_HOST": "::1",
        "HOSTLER_PORT": "9000",
        "HOSTLER_LEASE_TTL_S": "90.5",
        "HOSTLER_PING_INTERVAL_S": "",
    }
    settings = Settings.from_environment(environ, port=9001, host=None)
    assert settings.state_dir == tmp_path
    assert (settings.host, settings.port, settings.url) == ("::1", 9001, "http://[::1]:9001")
    assert (settings.lease_ttl_s, settings.ping_interval_s) == (90.5, 10)
    assert settings.database_url == f"sqlite:///{tmp_path}/hub.sqlite3"


def test_the_state_directory_by_default() -> None:
    at = Settings.from_environment({"HOME": "/home/ann"}).state_dir
    assert at == Path("/home/ann/.local/state/hostler")
    at = Settings.from_environment({"HOME": "/home/ann", "XDG_STATE_HOME": "/var/x"}).state_dir
    assert at == Path("/var/x/hostler")


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("sqlite:////srv/hub.db", "sqlite:////srv/hub.db"),
        ("sqlite:///hub.db", f"sqlite:///{Path.cwd()}/hub.db"),
        ("sqlite:////srv/feature%2Flogin/hub.db", "sqlite:////srv/feature/login/hub.db"),
        ("sqlite:////srv/is%20it%3F/hub.db", "sqlite:////srv/is%20it%3F/hub.db"),
        ("postgresql://u:p@db:5433/hub", "postgresql+psycopg://u:p@db:5433/hub"),
        ("postgres:///hub?host=/run/pg", "postgresql+psycopg:///hub?host=/run/pg"),
        ("postgresql+psycopg://db/hub", "postgresql+psycopg://db/hub"),
    ],
)
def test_database_urls(tmp_path: Path, given: str, made: str) -> None:
    settings = Settings(state_dir=tmp_path, database_url=given)
    assert settings.database_url == made
    assert "p@db" not in repr(settings)  # V14


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"port": 65536}, "port: 65536"),
        ({"port": -1}, "port: -1"),
        ({"HOSTLER_PORT": "http"}, "port: 'http'"),
        ({"host": ""}, "host"),
        ({"host": "http://x"}, "host"),
        ({"log_level": "loud"}, "log_level"),
        ({"lease_ttl_s": 60.0}, "lease_ttl_s"),
        ({"ping_interval_s": 0.0}, "ping_interval_s"),
        ({"HOSTLER_PING_INTERVAL_S": "nan"}, "ping_interval_s"),
        ({"database_url": "mysql://u:hunter2@h/d"}, "database_url"),
        ({"database_url": "hunter2"}, "database_url"),
        ({"database_url": "sqlite://"}, "database_url"),
        ({"database_url": "sqlite:///:memory:"}, "database_url"),
        ({"database_url": "postgresql://u:hunter2@h"}, "database_url"),
        ({"database_url": "postgresql://u:hunter2@h:x/d"}, "database_url"),
    ],
)
def test_wrong_values_are_one_line(tmp_path: Path, values: dict[str, Any], named: str) -> None:
    environ = {key: value for key, value in values.items() if key.isupper()}
    overrides = {key: value for key, value in values.items() if key.islower()}
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(environ, state_dir=tmp_path, **overrides)
    message = str(caught.value)
    assert message.startswith(named)
    assert "\n" not in message
    assert "hunter2" not in message


def test_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/hostler")):
        with pytest.raises(SettingsError, match="cannot be written"):
            Settings(state_dir=place).prepare_state_dir()


def test_the_state_directory_is_private(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "a" / "b")
    settings.prepare_state_dir()
    assert settings.state_dir.stat().st_mode & 0o777 == 0o700
    assert list(settings.state_dir.iterdir()) == []
