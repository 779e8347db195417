"""The hub's own door with a lock."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from hostler_hub.cli import main
from hostler_hub.errors import SettingsError
from hostler_hub.runtime.certificate import Certificate
from hostler_hub.runtime.certificate_authority import make
from hostler_hub.runtime.settings import Settings

NAMES = ["hub.example.org", "192.0.2.7", "127.0.0.1"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make(tmp_path / "tls", NAMES)
    return tmp_path / "tls"


def shake_hands(context: ssl.SSLContext, authority: Path, name: str) -> int:
    """The serial number of the certificate that a strict client accepted."""
    strict = ssl.create_default_context(cafile=authority)
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = strict.wrap_bio(*client, server_hostname=name)
    theirs = context.wrap_bio(client[1], client[0], server_side=True)
    for side in (ours, theirs, ours, theirs):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return int(ours.getpeercert()["serialNumber"], 16)


@pytest.mark.parametrize("name", NAMES)
def test_a_strict_client_accepts_it_under_each_name(directory: Path, name: str) -> None:
    certificate = Certificate(directory / "hub.pem", directory / "hub.key")
    assert shake_hands(certificate.context, directory / "ca.pem", name)


def test_it_is_refused_under_another_name(directory: Path) -> None:
    certificate = Certificate(directory / "hub.pem", directory / "hub.key")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(certificate.context, directory / "ca.pem", "evil.example.org")


def test_keys_are_private_and_the_authority_stays(directory: Path) -> None:
    for name in ("ca.key", "hub.key"):
        assert (directory / name).stat().st_mode & 0o777 == 0o600
    authority = (directory / "ca.pem").read_bytes()
    old = (directory / "hub.pem").read_bytes()
    make(directory, NAMES)
    assert (directory / "ca.pem").read_bytes() == authority
    assert (directory / "hub.pem").read_bytes() != old


def touch(path: Path) -> None:
    """Later than before on any file system."""
    later = path.stat().st_mtime + 10
    os.utime(path, (later, later))


def test_N2_a_renewed_certificate_is_taken_up(directory: Path) -> None:
    certificate = Certificate(directory / "hub.pem", directory / "hub.key")
    before = shake_hands(certificate.context, directory / "ca.pem", "hub.example.org")
    assert certificate.renew() is False
    make(directory, NAMES)
    touch(directory / "hub.pem")
    assert certificate.renew() is True
    assert shake_hands(certificate.context, directory / "ca.pem", "hub.example.org") != before


def test_D8_a_broken_one_is_not(directory: Path) -> None:
    certificate = Certificate(directory / "hub.pem", directory / "hub.key")
    before = shake_hands(certificate.context, directory / "ca.pem", "hub.example.org")
    (directory / "hub.pem").write_text("half a file")
    touch(directory / "hub.pem")
    assert certificate.renew() is False
    assert shake_hands(certificate.context, directory / "ca.pem", "hub.example.org") == before
    make(directory, NAMES)
    touch(directory / "hub.pem")
    assert certificate.renew() is True


def test_a_pair_that_does_not_fit_stops_the_start(directory: Path, tmp_path: Path) -> None:
    make(tmp_path / "other", NAMES)
    with pytest.raises(SettingsError, match=r"tls_certificate .*hub.pem"):
        Certificate(directory / "hub.pem", tmp_path / "other" / "hub.key")
    with pytest.raises(SettingsError, match="No such file"):
        Certificate(directory / "none.pem", directory / "hub.key")


def test_one_without_the_other_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="both or none"):
        Settings(tmp_path, tls_certificate="x.pem")


def test_a_hub_speaks_tls_only_and_its_commands_know_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ["--state-dir", str(tmp_path / "hub")]
    assert main(["certificate", *state, "hub.example.org", "127.0.0.1"]) == 0
    for line in capsys.readouterr().out.splitlines():
        name, _, value = line.partition("=")
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOSTLER_PUBLIC_URL", "https://hub.example.org")
    # Not in this process: a hub's signals and locks are a process's.
    hub = [sys.executable, "-m", "hostler_hub"]
    subprocess.run([*hub, "start", *state, "--port", "0"], check=True, capture_output=True)
    try:
        run = json.loads((tmp_path / "hub" / "hub.json").read_text())
        assert run["url"] == "https://hub.example.org"
        assert run["ca_file"] == str(tmp_path / "hub" / "tls" / "ca.pem")
        assert main(["status", "--json", *state]) == 0
        assert json.loads(capsys.readouterr().out)["healthy"] is True
        assert main(["token", "create", *state, "ann", "--role", "operator"]) == 0
        token = capsys.readouterr().out.strip()
        assert build_on(run["local_url"], run["ca_file"], token) == "success"
        port = int(run["local_url"].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200" not in plain.recv(100)
    finally:
        subprocess.run([*hub, "stop", *state], check=True, capture_output=True)


def build_on(url: str, ca_file: str, token: str) -> str:
    """How a build on a latent worker of this machine ended."""
    context = ssl.create_default_context(cafile=ca_file)
    bearer = {"Authorization": f"Bearer {token}"}
    with httpx2.Client(
        base_url=f"{url}/api/v1", verify=context, headers=bearer, timeout=70
    ) as client:
        worker = {"name": "local-1", "driver": "local"}
        client.post("/workers/define", json={"workers": [worker]}).raise_for_status()
        steps = [{"name": "true", "command": ["true"]}]
        build = client.post("/builds", json={"steps": steps}).raise_for_status().json()
        ended = client.get(f"/builds/{build['id']}", params={"wait_s": 60}).json()
        return str(ended["state"])
