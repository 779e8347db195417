"""Credentials that are rotated while the hub runs count from the next call on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostler_hub.drivers.ec2.client import RenewedClient
from hostler_hub.drivers.ec2.options import Ec2Options
from hostler_hub.drivers.errors import OptionsRefused
from hostler_hub.runtime.secrets import Secrets

MACHINE = {"region": "eu-west-1", "ami": "ami-12c6146b", "instance_types": ["t3.micro"]}
KEYS = {"access_key": {"file": "id"}, "secret_key": {"file": "key"}}


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    (tmp_path / "id").write_text("OLD")
    (tmp_path / "key").write_text("old")
    return Secrets(tmp_path)


@pytest.fixture
def made() -> Iterator[list[RenewedClient]]:
    clients: list[RenewedClient] = []
    yield clients
    for each in clients:
        each.close()


def key_of(client: Any) -> tuple[str, str]:
    """What its next call is signed with."""
    signer = client._request_signer._credentials.get_frozen_credentials()
    return signer.access_key, signer.secret_key


def renewed(made: list[RenewedClient], secrets: Secrets, **options: Any) -> RenewedClient:
    made.append(RenewedClient(Ec2Options.of({**MACHINE, **options}), secrets))
    return made[-1]


def test_a_secret_that_has_changed_is_used_for_the_next_call(
    made: list[RenewedClient], secrets: Secrets, tmp_path: Path
) -> None:
    client = renewed(made, secrets, credentials=KEYS)
    first = client.current()
    assert key_of(first) == ("OLD", "old")
    assert client.current() is first
    (tmp_path / "id").write_text("NEW")
    (tmp_path / "key").write_text("new")
    assert key_of(client.current()) == ("NEW", "new")
    (tmp_path / "key").unlink()
    with pytest.raises(OptionsRefused, match=r"ec2: option credentials: secret file key"):
        client.current()
    (tmp_path / "key").write_text("newer")
    assert key_of(client.current()) == ("NEW", "newer")


def test_a_profile_that_has_changed_is_used_for_the_next_call(
    made: list[RenewedClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "aws"
    file.write_text("[fleet]\naws_access_key_id = OLD\naws_secret_access_key = old\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    client = renewed(made, Secrets(), profile="fleet")
    assert key_of(client.current()) == ("OLD", "old")
    fresh = tmp_path / "fresh"
    fresh.write_text("[fleet]\naws_access_key_id = NEW\naws_secret_access_key = new\n")
    fresh.replace(file)
    assert key_of(client.current()) == ("NEW", "new")


def test_credentials_from_elsewhere_are_asked_for_again_once_they_are_refused(
    made: list[RenewedClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper, config = tmp_path / "helper", tmp_path / "config"
    said = '{"Version": 1, "AccessKeyId": "%s", "SecretAccessKey": "s"}'
    helper.write_text(said % "OLD")
    config.write_text(f"[profile fleet]\ncredential_process = cat {helper}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    client = renewed(made, Secrets(), profile="fleet")
    assert key_of(client.current())[0] == "OLD"
    helper.write_text(said % "NEW")
    client.refused()
    assert key_of(client.current())[0] == "NEW"
