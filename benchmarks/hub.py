"""A real hub in a process of its own, on an embedded database in a temporary directory."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.client import Client
from benchmarks.processes import BenchmarkFailed, running, wait_for

API = "/api/v1"


@dataclass(frozen=True)
class Hub:
    """A hub that answers."""

    pid: int
    url: str
    token: str
    client: Client

    def connect(self) -> Client:
        """One more connection."""
        return Client(self.url, self.token)

    @property
    def agents_url(self) -> str:
        return self.url.replace("http", "ws", 1) + f"{API}/agents/connect"

    def define(self, names: Sequence[str], **definition: Any) -> None:
        workers = [{"driver": "local", **definition, "name": name} for name in names]
        self.client.post(f"{API}/workers/define", {"workers": workers})

    def worker(self, name: str) -> Mapping[str, Any]:
        view: Mapping[str, Any] = self.client.get(f"{API}/workers/{name}")
        return view

    def substantiate(self, names: Sequence[str]) -> None:
        """Start workers and wait until builds can go to them."""
        self.client.post(f"{API}/workers/substantiate", {"names": list(names)})
        for name in names:
            self.await_state(name, "substantiated")

    def await_state(self, name: str, state: str) -> None:
        def look() -> bool | None:
            view = self.worker(name)
            if view["quarantine"] is not None:
                raise BenchmarkFailed(f"worker {name}: {view['last_error']}")
            return True if view["state"] == state else None

        wait_for(look, f"worker {name} becoming {state}")

    def gone(self, names: Sequence[str]) -> bool:
        """Whether none of the workers is there any more."""
        views = self.client.post(f"{API}/workers/query", {"names": list(names)})
        return not views["items"]

    def await_idle(self, name: str) -> None:
        """A build has its result a moment before its worker is free again."""
        wait_for(
            lambda: None if self.worker(name)["builds"] else True, f"{name}'s last build's end"
        )

    def submit(self, worker: str | None, *command: str) -> str:
        """Submit a build of one step; its id."""
        spec: dict[str, Any] = {"steps": [{"name": "run", "command": list(command)}]}
        if worker is not None:
            spec["requires"] = {"worker": worker}
        view = self.client.post(f"{API}/builds", spec)
        return str(view["id"])

    def await_success(self, build: str) -> None:
        view = self.client.get(f"{API}/builds/{build}?wait_s=60")
        if view["state"] != "success":
            reason = view["result_text"] or view["why"]
            raise BenchmarkFailed(f"build {build} is {view['state']}: {reason}")


@contextlib.contextmanager
def start(directory: Path, settings: Mapping[str, str] | None = None) -> Iterator[Hub]:
    """Serve a hub from ``directory``; it ends, with its agents, when the block does."""
    run_file = directory / "hub.json"
    argv = [sys.executable, "-P", "-m", "hostler_hub", "serve"]
    argv += ["--state-dir", str(directory), "--port", "0"]
    with running(argv, directory, settings) as process:

        def look() -> str | None:
            if process.poll() is not None:
                said = (directory / "output.log").read_text()[-1000:]
                raise BenchmarkFailed(f"the hub did not start: {said}")
            with contextlib.suppress(FileNotFoundError, ValueError):
                return str(json.loads(run_file.read_text())["url"])
            return None

        url = wait_for(look, "the hub's start")
        token = (directory / "admin.token").read_text().strip()
        client = Client(url, token)
        try:
            yield Hub(process.pid, url, token, client)
        finally:
            _send_away(client)
            client.close()


def _send_away(client: Client) -> None:
    """Stop every worker: an agent outlives its hub unless it is told to go."""
    names: list[str] = []
    after = ""
    while page := client.get(f"{API}/workers?limit=500&after={after}")["items"]:
        names += [view["name"] for view in page if view["state"] != "latent"]
        after = page[-1]["name"]
    if not names:
        return
    client.post(f"{API}/workers/mode", {"names": names, "mode": "stopped", "reason": "the end"})
    ends_at = time.monotonic() + 30
    while time.monotonic() < ends_at:
        views = client.post(f"{API}/workers/query", {"names": names})["items"]
        if not any(view["instance"] for view in views if view["driver"] != "permanent"):
            return
        time.sleep(0.05)
    raise BenchmarkFailed("agents of the benchmark did not go away")
