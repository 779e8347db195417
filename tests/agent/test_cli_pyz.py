"""agent.pyz: one file, under every Python that it promises to run with."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hostler_agent.wire.extension import CommandTerms

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13")


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pyz") / "agent.pyz"
    subprocess.run([sys.executable, ROOT / "scripts" / "make-agent-pyz", path], check=True)
    return path


def find_python(version: str) -> str:
    """The interpreter of that version: pyenv's, else one on PATH; skips when there is none."""
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    found = str(pyenv[-1]) if pyenv else shutil.which(f"python{version}")
    if found is None:
        pytest.skip(f"there is no python{version} here; pyenv install {version} gets one")
    return found


@pytest.mark.parametrize("version", VERSIONS)
async def test_it_runs_a_command_and_ends(hub, pyz: Path, tmp_path: Path, version: str) -> None:
    python = find_python(version)
    (tmp_path / "token").touch(mode=0o600)
    (tmp_path / "token").write_text("token")
    config = tmp_path / "agent.json"
    config.touch(mode=0o600)
    # A name of its own: an agent ends what one of its name has left on the machine.
    name = f"w-{secrets.token_hex(6)}"
    options = {"hub": hub.url, "name": name, "workdir": "work", "token_file": "token"}
    config.write_text(json.dumps(options))
    process = await asyncio.create_subprocess_exec(
        *(python, "-I", "-W", "error", pyz, "run", "--config", config),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        connection = await hub.attached()
        assert connection.info["python_version"].startswith(version + ".")
        script = {"command": "printf 'hello %s' \"$0\"", "workdir": str(tmp_path)}
        await connection.start("c1", "shell", hostler=CommandTerms("lease", 1).body(), **script)
        assert await hub.completed("c1") is None
        output = [value for name, value in hub.updates["c1"] if name == "output"]
        stdout = b"".join(value["data"] for value in output if value["stream"] == "stdout")
        assert stdout == b"hello /bin/sh"
        assert ["rc", 0] in hub.updates["c1"]
        process.send_signal(signal.SIGTERM)
        _, log = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, log.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def test_it_holds_nothing_compiled_and_the_licences(pyz: Path) -> None:
    with zipfile.ZipFile(pyz) as archive:
        names = archive.namelist()
    assert not [name for name in names if name.endswith((".so", ".pyd", ".pyc"))]
    assert len([name for name in names if ".dist-info/" in name]) == 2
    assert pyz.stat().st_size < 400_000


def test_the_same_sources_make_the_same_file(pyz: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.pyz"
    subprocess.run([sys.executable, ROOT / "scripts" / "make-agent-pyz", again], check=True)
    assert again.read_bytes() == pyz.read_bytes()
