"""What made `schema-0002.sqlite3`: a real hub with real peers, killed in the midst of its work.

It was run once, on the version whose name the file has, and is kept to say how the file came to be.
It is not run again: a hub of a later version would make another file. Next to it a later version
may add one of its own.

    make.py TARGET      (root, with Docker, sshd, Wine and namespaces; about a minute)
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shutil
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

import ports
import websockets
from aiosmtpd.controller import Controller
from e2e.api import Api, until
from e2e.hub_process import HubProcess
from peers import docker, ec2, ec2_machines, wine
from peers.sshd import Sshd
from peers.wsman import WsMan

HOME = Path("/var/tmp/hostler-fleet")
PYTHON = "/usr/bin/python3"
KEYS = {"access_key": {"env": "HOSTLER_SECRET_AWS"}, "secret_key": {"env": "HOSTLER_SECRET_AWS"}}
HELLO = ["sh", "-c", "echo hello from a build; echo and from its error output >&2"]
CMD = "echo hello from a build"
PATIENCE_S = 240.0


class Mailbox:
    """Takes whatever comes."""

    async def handle_DATA(self, *_: Any) -> str:
        return "250 OK"


class Machines:
    """Where the workers live."""

    def __init__(self, stack: contextlib.ExitStack, port: Any) -> None:
        self.docker = stack.enter_context(docker.shared())
        self.cloud = stack.enter_context(ec2.proxied(stack.enter_context(ec2.region())))
        stack.enter_context(ec2_machines.booting(self.cloud, port))
        self.sshd = Sshd(HOME / "sshd")
        self.sshd.start()
        stack.callback(self.sshd.stop)
        self.windows = WsMan(HOME / "service")
        self.windows.start()
        stack.callback(self.windows.stop)
        self.mail_port = ports.free()
        self.mail = Controller(Mailbox(), hostname="127.0.0.1", port=self.mail_port)
        self.mail.start()


def definitions(at: Machines) -> list[dict[str, Any]]:
    local = {"driver": "local", "driver_options": {"environment": {"FLAVOUR": "plain"}}}
    ssh = {
        "host": at.sshd.address,
        "port": at.sshd.port,
        "user": at.sshd.user,
        "key": {"file": "client"},
        "host_key": at.sshd.public_host_key,
        "directory": str(HOME / "ssh-machine"),
        "environment": {"FLAVOUR": "plain"},
    }
    container = {
        "image": docker.IMAGE,
        "docker_host": at.docker,
        "network_mode": "none",
        "memory": "256m",
        "labels": {"team": "tools"},
    }
    cloud = {
        "region": ec2.REGION,
        "ami": ec2.AMI,
        "instance_types": ["t3.micro"],
        "endpoint_url": at.cloud.url,
        "credentials": KEYS,
        "python": PYTHON,
    }
    windows = {
        "host": "127.0.0.1",
        "port": at.windows.port,
        "user": at.windows.user,
        "password": {"file": "windows"},
        "tls": False,
        "python": wine.windows_path(wine.windows().python),
        "directory": wine.windows_path(HOME / "windows-machine"),
    }
    warm = {"build_wait_timeout": 86400, "group": "warm"}
    return [
        {
            "name": "local-idle", **local, **warm, "labels": ["linux"], "priority": 5,
            "properties": {"site": "lab"}, "default_properties": {"cores": 2},
            "description": "kept warm", "expects": {"disk_free_mb": 1, "tools": {"sh": "*"}},
        },
        {"name": "local-busy", **local, **warm, "max_builds": 2},
        {"name": "local-paused", **local, "labels": ["later"], "max_uses": 50, "max_uptime": 86400},
        {"name": "ssh-direct", "driver": "ssh", "driver_options": ssh, **warm},
        {
            "name": "ssh-tunnel", "driver": "ssh", **warm,
            "driver_options": {**ssh, "tunnel": True, "containment": "subreaper"},
        },
        {"name": "docker-plain", "driver": "docker", "driver_options": container, **warm},
        {
            "name": "docker-cache", "driver": "docker", **warm,
            "driver_options": {**container, "volumes": ["hostler-cache:/cache"], "init": False},
        },
        {"name": "cloud-up", "driver": "ec2", "driver_options": cloud, **warm},
        {
            "name": "cloud-spare", "driver": "ec2", **warm,
            "driver_options": {**cloud, "at_end": "stop", "tags": {"team": "tools"}},
        },
        {
            "name": "windows-detached", "driver": "winrm", **warm,
            "driver_options": {**windows, "start": "detached"}, "missing_timeout": 240,
        },
        {
            "name": "windows-service", "driver": "winrm", **warm,
            "driver_options": {**windows, "start": "service"}, "missing_timeout": 240,
        },
        {
            "name": "own-missing", "driver": "permanent", "missing_timeout": 2,
            "password": {"file": "own"}, "notify_on_missing": ["ann@example.org"],
        },
        {
            "name": "own-closed", "driver": "permanent", "missing_timeout": 2,
            "password": "swordfish", "notify_on_missing": ["ann@example.org"],
        },
        {
            "name": "fake-up", "driver": "fake", "driver_options": {"attach": True},
            **warm,
        },
        {"name": "fake-failing", "driver": "fake", "driver_options": {"create": "fail"}},
        {"name": "fake-leased", "driver": "fake", "driver_options": {"attach": True}},
        {"name": "fake-released", "driver": "fake", "driver_options": {"attach": True}},
        {"name": "fake-stopped", "driver": "fake"},
    ]  # fmt: skip


GROUPS = [
    {
        "name": "warm", "min_idle": 0, "max_instances": 40, "description": "those that stay up",
        "max_starting": 8, "max_starts_per_minute": 60, "failures_allowed": 3,
        "schedules": [
            {"name": "nights", "cron": "0 20 * * *", "time_zone": "Europe/Berlin",
             "duration_s": 36000, "max_instances": 20},
        ],
    },
    {"name": "empty", "min_idle": 0},
]  # fmt: skip


async def refused(hub: HubProcess) -> None:
    """An agent that nobody knows."""
    credentials = base64.b64encode(b"stranger:guess").decode()
    with contextlib.suppress(websockets.WebSocketException, OSError):
        async with websockets.connect(
            hub.agents_url, additional_headers={"Authorization": f"Basic {credentials}"}
        ) as made:
            await made.recv()


async def fill(hub: HubProcess, at: Machines) -> None:
    async with Api(hub.url, hub.token) as api:
        await api.post("/groups/define", {"groups": GROUPS})
        await api.post("/workers/define", {"workers": definitions(at)})
        for name, role in (("ann", "operator"), ("ben", "submitter"), ("eve", "viewer")):
            made = await api.post("/tokens", {"name": name, "role": role})
            if name == "ben":
                ben = Api(hub.url, made["token"])
        await refused(hub)
        await api.mode("local-paused", "paused", "until tomorrow")
        await api.mode("fake-stopped", "stopped", "not needed")
        await api.post("/workers/substantiate", {"names": ["fake-failing"]})
        await past(hub, api, ben)
        await leases(api)
        await incidents(api)
        await until(lambda: api.get("/deliveries?state=sent"), lambda page: page["items"])
        await asyncio.to_thread(at.mail.stop)
        await api.post("/notifications/test", {})  # nobody takes this one
        await until(
            lambda: api.get("/deliveries?state=pending"),
            lambda page: any(each["attempts"] for each in page["items"]),
        )
        await asyncio.sleep(3)  # refusals are stored a moment later
        await last(api, ben)
        await ben.client.aclose()


async def past(hub: HubProcess, api: Api, ben: Api) -> None:
    """Builds that have ended, in every way, on every driver."""
    plain = ["local-idle", "ssh-direct", "ssh-tunnel", "docker-plain", "docker-cache"]
    plain += ["cloud-up", "cloud-spare", "fake-up"]
    builds = [await ben.submit(HELLO, worker=name, name=f"on {name}") for name in plain]
    builds += [
        await ben.submit(CMD, worker=name, name=f"on {name}")
        for name in ("windows-detached", "windows-service")
    ]
    for build in builds:
        ended = await api.ended(build, PATIENCE_S)
        assert ended["state"] == "success", ended
    steps = [
        {"name": "make", "command": ["sh", "-c", "echo text > report.txt; mkdir d; echo 1 > d/1"]},
        {"name": "keep", "upload": {"from": "report.txt"}},
        {"name": "keep all", "upload_directory": {"from": "d", "name": "all"}},
        {"name": "fail", "command": ["sh", "-c", "echo it fails; exit 3"]},
        {"name": "never", "command": ["true"]},
    ]
    failure = await ben.submit(*steps, worker="local-idle", name="failure", key="once", priority=3)
    assert (await api.ended(failure))["state"] == "failure"
    cancelled = await ben.submit(["sleep", "600"], worker="local-idle", name="cancelled")
    await until(lambda: api.get(f"/builds/{cancelled}"), lambda view: view["state"] == "running")
    await api.cancel(cancelled)
    await api.ended(cancelled)
    await lost(hub, api, ben)
    # Its machine is stopped, and kept.
    await api.idle("cloud-spare")
    await api.post("/workers/insubstantiate", {"names": ["cloud-spare"]})
    await until(lambda: api.worker("cloud-spare"), lambda view: view["state"] == "latent")


async def lost(hub: HubProcess, api: Api, ben: Api) -> None:
    """One whose agent was killed, and that was run again."""
    twice = await ben.submit(["sh", "-c", "echo try; sleep 3"], worker="local-busy", name="twice")
    await api.log_says(twice, b"try\n")
    os.kill(hub.agent_of("local-busy"), signal.SIGKILL)
    ended = await api.ended(twice, PATIENCE_S)
    assert (ended["state"], ended["attempts"]) == ("success", 2), ended
    hopeless = await ben.submit(
        ["sh", "-c", "echo try; sleep 60"], worker="local-busy", name="lost", retry={"on_loss": 0}
    )
    await api.log_says(hopeless, b"try\n")
    os.kill(hub.agent_of("local-busy"), signal.SIGKILL)
    assert (await api.ended(hopeless, PATIENCE_S))["state"] == "exception"


async def incidents(api: Api) -> None:
    """One that is over, and one that lasts."""
    page = await until(lambda: api.get("/incidents"), lambda page: len(page["items"]) >= 2)
    missing = {each["worker"]: each["id"] for each in page["items"]}
    await api.post(f"/incidents/{missing['own-missing']}/evidence", {"evidence": {"seen": "dark"}})
    await api.post(f"/incidents/{missing['own-closed']}/close", {"reason": "sold"})
    await api.post("/workers/mode", {"names": ["own-closed"], "mode": "paused", "reason": "sold"})


async def leases(api: Api) -> None:
    for worker in ("ssh-direct", "fake-leased", "fake-released"):
        asked = {"worker": worker, "reason": "debugging", "ttl_s": 86400, "wait_s": 600}
        made = (await api.post("/leases", asked))["lease"]
        await until(
            lambda made=made: api.get(f"/leases/{made['id']}"),
            lambda view: view["state"] == "held",
        )
    await api.post(f"/leases/{made['id']}/release", {})


async def last(api: Api, ben: Api) -> None:
    """What the hub is killed in the midst of."""
    running = await ben.submit(
        ["sh", "-c", "echo begun; sleep 600"], worker="local-busy", name="running",
        properties={"branch": "main"},
    )  # fmt: skip
    await api.log_says(running, b"begun\n")
    waiting = [
        await ben.submit(
            HELLO, requires={"labels": ["later"]}, name="waiting", properties={"branch": "main"}
        )
    ]
    waiting.append(await ben.submit(HELLO, worker="fake-leased", name="waits for a person"))
    asked = {"worker": "local-busy", "ttl_s": 86400, "wait_s": 86400, "keep": True}
    await api.post("/leases", asked)
    up = await api.get("/workers?state=substantiated")
    print(*(each["name"] for each in up["items"]), sep="\n")


def main(target: Path) -> None:
    hub = HubProcess(HOME / "hub", secret_aws="testing", log_level="warning")
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, HOME, ignore_errors=True)
        at = Machines(stack, lambda: hub.port)
        secrets = hub.state_dir / "secrets"
        secrets.mkdir(parents=True)
        (secrets / "client").write_text(at.sshd.client_key.read_text())
        (secrets / "windows").write_text(at.windows.password)
        (secrets / "own").write_text("swordfish")
        hub._settings |= {
            "smtp_host": "127.0.0.1",
            "smtp_port": str(at.mail_port),
            "smtp_tls": "none",
            "smtp_from": "hostler@example.org",
            "notify_mail": "team@example.org",
        }
        stack.callback(hub.close)
        hub.start()
        asyncio.run(fill(hub, at))
        hub.kill()
        with contextlib.closing(sqlite3.connect(hub.state_dir / "hub.sqlite3")) as connection:
            target.unlink(missing_ok=True)
            connection.execute("VACUUM INTO ?", (str(target),))
        # In order: what it has started is found again and ended.
        hub.start()
        hub.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
