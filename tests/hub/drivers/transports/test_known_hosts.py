"""known_hosts files: what their lines say of a machine, and what is passed over."""

from __future__ import annotations

import subprocess
from pathlib import Path

import paramiko
import pytest
from structlog.testing import capture_logs

from hostler_hub.drivers.transports.ssh.known_hosts import KnownHosts, fingerprint, name_of, parse

KEY, OTHER = (
    paramiko.ECDSAKey.generate(),
    paramiko.ECDSAKey.generate(),
)
LINE, OTHER_LINE = (f"{key.get_name()} {key.get_base64()}" for key in (KEY, OTHER))


def known(tmp_path: Path, content: str | bytes) -> KnownHosts:
    path = tmp_path / "known_hosts"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return KnownHosts(path)


@pytest.mark.parametrize(
    ("names", "matches"),
    [
        ("host", True),
        ("HOST", True),
        ("x,host", True),
        ("h*t", True),
        ("h*x", False),
        ("hos?", True),
        ("host?", False),
        ("*", True),
        ("*,!host", False),
        ("!host,*", False),
        ("!x,*", True),
        ("!host", False),
        ("[host]", False),
        ("[h]ost", False),
        (".*", False),
        ("hos.", False),
        ("|1|AAAA|AAAA", False),
        ("|1|not base64|x", False),
        ("|1|", False),
        ("|", False),
    ],
)
def test_names_and_patterns(tmp_path: Path, names: str, matches: bool) -> None:
    assert bool(known(tmp_path, f"{names} {LINE}\n").of(["host"]).keys) is matches


def test_a_hashed_name_is_found(tmp_path: Path) -> None:
    hosts = known(tmp_path, f"[host]:2022 {LINE}\n")
    subprocess.run(["ssh-keygen", "-H", "-f", hosts.path], check=True, capture_output=True)
    assert "host" not in hosts.path.read_text()
    assert hosts.of(["[host]:2022"]).keys == {KEY.asbytes()}
    assert not hosts.of(["host"]).keys


def test_a_later_name_counts_only_where_an_earlier_has_no_key(tmp_path: Path) -> None:
    hosts = known(tmp_path, f"host {LINE}\n[host]:22022 {OTHER_LINE}\n")
    assert hosts.of(["[host]:22022", "host"]).keys == {OTHER.asbytes()}
    assert hosts.of(["[host]:1", "host"]).keys == {KEY.asbytes()}


def test_markers(tmp_path: Path) -> None:
    hosts = known(tmp_path, f"@revoked host {LINE}\n@cert-authority *.example {OTHER_LINE}\n")
    assert hosts.of(["host"]).revoked == {KEY.asbytes()}
    assert not hosts.of(["host"]).keys
    assert not hosts.of(["host"]).has_authority
    assert hosts.of(["x.example"]).has_authority
    assert not hosts.of(["x.example"]).revoked


def test_other_files_add_to_the_hub_s(tmp_path: Path) -> None:
    (tmp_path / "second").write_text(f"host {OTHER_LINE}\n")
    hosts = known(tmp_path, f"host {LINE}\n")
    others = [tmp_path / "absent", tmp_path / "second", tmp_path]
    assert hosts.of(["host"], others).keys == {KEY.asbytes(), OTHER.asbytes()}


@pytest.mark.parametrize(
    "line",
    [
        b"other ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDx",
        b"other ssh-ed25519 ***",
        b"other ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIDx",
        b"other ssh-ed25519",
        b"other",
        b"@unknown other ssh-ed25519 AAAA",
        b"@",
        b"other ssh-ed25519 \xe9\xe8",
        b"\0\1\2",
        "ö ssh-ed25519 AAAA".encode(),
        "other ssh-ed25519 AAAA٣".encode(),
        b"x" * 100_000,
    ],
)
def test_a_line_that_cannot_be_read_is_passed_over_and_logged_once(
    tmp_path: Path, line: bytes
) -> None:
    hosts = known(tmp_path, line + b"\n" + f"host {LINE}\n".encode())
    with capture_logs() as logs:
        assert hosts.of(["host"]).keys == {KEY.asbytes()}
        assert hosts.of(["host"]).keys == {KEY.asbytes()}
    assert [(each["log_level"], each["line"]) for each in logs] == [("warning", 1)]
    assert hosts.add("new", OTHER)
    assert hosts.of(["new"]).keys == {OTHER.asbytes()}


def test_comments_in_any_encoding_are_no_fault(tmp_path: Path) -> None:
    content = b"# caf\xe9\n\n   \t\r\n" + f"host\t{LINE} Caf\xe9\r\n".encode("latin-1")
    with capture_logs() as logs:
        assert known(tmp_path, content).of(["host"]).keys == {KEY.asbytes()}
    assert logs == []


def test_a_file_that_cannot_be_read_knows_nobody(tmp_path: Path) -> None:
    (tmp_path / "known_hosts").mkdir()
    with capture_logs() as logs:
        assert not KnownHosts(tmp_path / "known_hosts").of(["host"]).keys
    assert len(logs) == 1


def test_a_new_key_is_added_after_a_last_line_without_its_end(tmp_path: Path) -> None:
    hosts = known(tmp_path, f"host {LINE}")
    assert hosts.add("new", OTHER)
    assert hosts.of(["host"]).keys == {KEY.asbytes()}
    assert hosts.of(["new"]).keys == {OTHER.asbytes()}
    assert not hosts.add("new", KEY)
    assert hosts.add("new", OTHER)
    assert hosts.path.read_text().count("new") == 1


def test_a_machine_that_is_known_by_a_pattern_is_not_new(tmp_path: Path) -> None:
    hosts = known(tmp_path, f"10.0.* {LINE}\n")
    assert not hosts.add("10.0.0.1", OTHER)
    assert hosts.add("10.0.0.1", KEY)
    assert hosts.path.read_text() == f"10.0.* {LINE}\n"


def test_a_type_that_only_others_can_read_is_a_key_all_the_same(tmp_path: Path) -> None:
    """What is known by such a key is not new."""
    key = "sk-ssh-ed25519@openssh.com"
    blob = "AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAAngBAAAAAXg="
    assert not known(tmp_path, f"host {key} {blob}\n").add("host", KEY)


def test_names_and_fingerprints(tmp_path: Path) -> None:
    assert (name_of("host", 22), name_of("host", 2022)) == ("host", "[host]:2022")
    (tmp_path / "key.pub").write_text(f"{LINE}\n")
    listed = subprocess.run(
        ["ssh-keygen", "-l", "-f", tmp_path / "key.pub"], check=True, capture_output=True, text=True
    ).stdout
    assert fingerprint(KEY) == fingerprint(KEY.asbytes())
    assert fingerprint(KEY).split()[1] in listed
    assert parse(LINE) == KEY
    for wrong in ("", "x", "ssh-rsa AAAA", LINE[:60], LINE.replace("nistp256 ", "nistp384 ")):
        with pytest.raises(ValueError, match="it is no public key"):
            parse(wrong)
