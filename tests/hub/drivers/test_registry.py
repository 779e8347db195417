"""Drivers by entry point, and what becomes of one whose extra is not installed."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hostler_hub.drivers import registry
from hostler_hub.drivers.contract import Environment, InstanceRef
from hostler_hub.drivers.errors import OptionsRefused, ProviderFailed
from hostler_hub.errors import SettingsError
from hostler_hub.runtime import settings

SDKS = ["boto3", "botocore", "docker", "paramiko", "psycopg", "winrm"]
EXTRAS = ["docker", "ec2", "ssh", "winrm"]


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda _name: None)
    monkeypatch.setattr(settings, "find_spec", lambda _name: None)


@pytest.mark.parametrize("name", EXTRAS)
def test_a_driver_without_its_extra_takes_no_worker(nothing_installed: None, name: str) -> None:
    driver = registry.load()[name]
    with pytest.raises(OptionsRefused, match=rf"pip install 'hostler\[{name}\]'"):
        registry.check_options(driver, {"host": "build1"})


@pytest.mark.parametrize("name", EXTRAS)
async def test_its_instances_stay_and_each_call_says_what_to_install(
    nothing_installed: None, name: str, tmp_path: Path
) -> None:
    """V3: what an earlier hub has started is not forgotten, and not taken for gone."""
    kind = registry.load()[name]
    driver = kind(Environment(hub="0" * 26, directory=tmp_path, connect_url="ws://127.0.0.1:1"))
    options = {"host": "build1"}
    ref = InstanceRef("w", "0" * 26, 1, {"version": 1}, options)
    assert dict(driver.options_model.in_force({"host": "build2"}, options)) == options
    for call in (driver.inspect(ref), driver.destroy(ref), driver.list_owned([options])):
        with pytest.raises(ProviderFailed, match=rf"hostler\[{name}\]"):
            await call
    assert await driver.list_owned([]) == []


def test_postgresql_without_its_extra_is_refused(nothing_installed: None, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"pip install 'hostler\[postgresql\]'"):
        settings.Settings(state_dir=tmp_path, database_url="postgresql://hub@localhost/hub")


def test_the_hub_needs_none_of_the_extras() -> None:
    """Imported where each of their packages is missing; every driver is there or says why not."""
    code = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {SDKS}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Missing())
from hostler_hub.drivers import registry

registry.find_spec = lambda name: None
import hostler_hub.app, hostler_hub.cli
print(*sorted(registry.load()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) >= {"local", "permanent", *EXTRAS}


@pytest.mark.parametrize("name", [*EXTRAS, "postgresql"])
def test_each_extra_is_one_that_the_distribution_has(name: str) -> None:
    wanted = {"postgresql": "psycopg", "winrm": "pywinrm", "ssh": "paramiko", "ec2": "boto3"}
    lines = [line for line in requires("hostler") or [] if f"extra == '{name}'" in line]
    assert any(line.startswith(wanted.get(name, name)) for line in lines)


def test_a_driver_of_a_third_party_stops_the_start_when_it_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> Any:
        raise ImportError("its own dependency")

    points = [SimpleNamespace(name="theirs", load=broken)]
    monkeypatch.setattr(registry, "entry_points", lambda **_: points)
    with pytest.raises(ImportError, match="its own dependency"):
        registry.load()
