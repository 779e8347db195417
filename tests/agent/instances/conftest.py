"""A machine's directory of agents, driven as a hub does: one process for every act."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hostler_agent.instances import reply

ROOT = Path(__file__).resolve().parents[3]
# Of this run alone: marks of processes are looked for on the whole machine.
HUB = f"01K8Z9Q8Y3{secrets.token_hex(8).upper()}"
NONCE = "0123456789abcdef"


@dataclass
class Host:
    """`agent` is what runs: the archive, or the directory it was installed to."""

    directory: Path
    agent: Path
    environment: dict[str, str] = field(default_factory=dict)

    def call(self, action: str, **request: Any) -> dict[str, Any]:
        """The reply; a refusal is in it as `error`."""
        body = json.dumps({"directory": str(self.directory), "hub": HUB, **request})
        done = subprocess.run(
            [sys.executable, "-I", "-S", self.agent, "host", action, "--reply", NONCE],
            input=body.encode(),
            stdout=subprocess.PIPE,
            env={**os.environ, **self.environment},
            timeout=60,
            check=False,
        )
        found = reply.find(NONCE, done.stdout)
        assert found is not None, done.stdout
        assert done.returncode == (3 if "error" in found else 0)
        return found

    def start(self, instance: str, **request: Any) -> dict[str, Any]:
        """As a hub starts one; its agent finds nobody to talk to."""
        config = {"hub": "ws://127.0.0.1:9", "name": "w-1", "instance": instance, "epoch": 1}
        return self.call(
            "start", **{"instance": instance, "epoch": 1, "config": config, "token": "t", **request}
        )

    def stop(self, instance: str, **request: Any) -> dict[str, Any]:
        return self.call("stop", **{"instance": instance, "containment": "auto", **request})

    def instances(self, **request: Any) -> list[str]:
        return [each["instance"] for each in self.call("list", **request)["instances"]]


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "agent.pyz"
    subprocess.run([sys.executable, ROOT / "scripts" / "make-agent-pyz", path], check=True)
    return path


@pytest.fixture(scope="session")
def installed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, unpacked and with its compiled modules."""
    directory = tmp_path_factory.mktemp("installed")
    pushed = directory / "pushed.pyz"
    pushed.write_bytes(archive.read_bytes())
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    return Path(Host(directory, pushed).call("install", sha256=digest)["agent"])


@pytest.fixture
def host(installed: Path, tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path / "hostler", installed)
    yield made
    for each in made.call("list").get("instances", ()):
        if each["process"]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each["process"]["pid"], signal.SIGKILL)


@pytest.fixture
def new_instance() -> Callable[[], str]:
    """No two are the same on this machine: each ends what another of its id would have left."""
    return lambda: f"01K8Z9Q8Y3{secrets.token_hex(8).upper()}"
