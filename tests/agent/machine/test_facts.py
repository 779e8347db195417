from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostler_agent.machine.facts import (
    disk_mb,
    environment,
    info_files,
    machine_facts,
    os_release,
    worker_info,
)
from hostler_agent.wire import codec

DEBIAN = """\
# comment
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
ID=debian
VERSION_ID='12'
VERSION_CODENAME=bookworm
HOME_URL=
QUOTED="a \\"b\\" \\$c"
no assignment
"""


def test_os_release_as_buildbot_names_it(tmp_path: Path) -> None:
    """X06: os-release round trip."""
    path = tmp_path / "os-release"
    path.write_text(DEBIAN)
    assert os_release((tmp_path / "none", path)) == {
        "os_id": "debian",
        "os_id_like": None,
        "os_version_id": "12",
        "os_version_codename": "bookworm",
        "os_pretty_name": "Debian GNU/Linux 12 (bookworm)",
        "os_quoted": 'a "b" $c',
    }


def test_without_os_release_the_keys_are_there(tmp_path: Path) -> None:
    assert os_release((tmp_path / "none",)) == {
        "os_id": None,
        "os_id_like": None,
        "os_version_id": None,
        "os_version_codename": None,
    }


def test_only_known_variables_leave_the_machine() -> None:
    """V14: Buildbot's own worker sends all of them."""
    told = environment({"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "s3cret", "SystemRoot": "C:"})
    assert told == {"PATH": "/bin", "SystemRoot": "C:"}


def test_a_stock_master_finds_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTLER_TEST_SECRET", "s3cret")
    monkeypatch.setenv("PATH", "/bin:/b\udcff")
    info = worker_info(tmp_path, {"shell": "3.3"})
    assert info["system"] == os.name
    assert info["basedir"] == str(tmp_path)
    assert info["numcpus"] >= 1
    assert info["version"]
    assert info["worker_commands"] == {"shell": "3.3"}
    assert info["delete_leftover_dirs"] is False
    assert info["environ"]["PATH"] == "/bin:/b?"
    assert b"s3cret" not in codec.encode(info)


def test_transfers_are_announced_under_both_names(tmp_path: Path) -> None:
    """A stock master asks for `uploadFile` before it sends `upload_file`."""
    info = worker_info(tmp_path, {"upload_file": "3.3", "shell": "3.2"})
    assert info["worker_commands"] == {"upload_file": "3.3", "uploadFile": "3.3", "shell": "3.2"}


def test_the_facts_tell_the_machine(tmp_path: Path) -> None:
    facts = machine_facts(tmp_path)
    assert facts["memory_mb"] > 64
    assert facts["cpu_count"] == facts["numcpus"] >= 1
    assert 0 < facts["disk_free_mb"] <= facts["disk_mb"]
    assert facts["hostname"]
    assert {"os_id", "os_id_like", "os_version_id", "os_version_codename"} <= set(facts)


def test_a_disk_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    assert disk_mb(tmp_path / "none") == (None, None)


def test_info_files(tmp_path: Path) -> None:
    (tmp_path / "admin").write_text("Ada <ada@example.org>\n")
    (tmp_path / "host").write_text("a machine\n")
    (tmp_path / "binary").write_bytes(b"\xff")
    (tmp_path / "large").write_bytes(b"x" * 4097)
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert info_files(tmp_path) == {"admin": "Ada <ada@example.org>\n", "host": "a machine\n"}
    assert info_files(tmp_path / "none") == {}


def test_info_files_hide_nothing_of_ours(tmp_path: Path) -> None:
    (tmp_path / "info").mkdir()
    (tmp_path / "info" / "environ").write_text("x")
    assert isinstance(worker_info(tmp_path, {})["environ"], dict)
