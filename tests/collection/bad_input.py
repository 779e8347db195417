"""What owners get wrong, and what they should read of it: one worker for each.

The words are, in this order: driver and place, the provider's own, and the option with what to do.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
from peers import closed_registry, small_disk
from peers import docker as docker_peer
from peers import sshd as sshd_peer
from peers.sshd import Sshd

NOWHERE = "unix:///nowhere/docker.sock"
IMAGE = docker_peer.BARE_IMAGE


@dataclass(frozen=True)
class Case:
    """`options` are made of the places; `peers` are those it needs."""

    driver: str
    options: Callable[[Places], Mapping[str, Any]]
    words: Sequence[str]
    peers: Sequence[str] = ()

    def can_be_tried(self) -> bool:
        modules = {"sshd": sshd_peer, "docker": docker_peer, "small-disk": small_disk}
        return all(modules[peer].missing() is None for peer in self.peers)


def _ssh(words: Sequence[str], *peers: str, **changes: Any) -> Case:
    def options(places: Places) -> dict[str, Any]:
        right = {**places.ssh, "directory": str(places.directory / "hostler")}
        made = {name: places.told(value) for name, value in changes.items()}
        return {name: value for name, value in {**right, **made}.items() if value is not None}

    return Case("ssh", options, words, ("sshd", *peers))


def _docker(words: Sequence[str], *peers: str, **changes: Any) -> Case:
    def options(places: Places) -> dict[str, Any]:
        right = {"image": IMAGE, "docker_host": places.daemon, "network_mode": "none"}
        return {**right, **{name: places.told(value) for name, value in changes.items()}}

    return Case("docker", options, words, ("docker", *peers))


CASES = {
    "ssh-nowhere": Case(
        "ssh",
        lambda _: {"host": "127.0.0.1", "port": 1, "user": "build", "key": {"file": "other"}},
        ["ssh: build@127.0.0.1:1", "Connection refused", "options host and port"],
    ),
    "ssh-no-secret": Case(
        "ssh",
        lambda _: {"host": "127.0.0.1", "port": 1, "user": "build", "key": {"file": "lost"}},
        ["ssh: build@127.0.0.1:1", "option 'key': secret file lost", "put it there, readable"],
    ),
    "ssh-wrong-key": _ssh(
        ["ssh: {user}@127.0.0.1:{port}", "Authentication failed", "options user, key and password"],
        key={"file": "other"},
    ),
    "ssh-wrong-user": _ssh(
        ["ssh: nobody-at-all@127.0.0.1:{port}", "Authentication failed", "options user, key"],
        user="nobody-at-all",
    ),
    "ssh-unknown-host-key": _ssh(
        [
            "ssh: {user}@127.0.0.1:{port} is not known",
            "set option 'host_key' to 'ssh-ed25519 ",
        ],
        host_key=None,
    ),
    "ssh-changed-host-key": _ssh(
        [
            "ssh: {user}@127.0.0.1:{port} has another key than it is known by: ssh-ed",
            "somebody may be in between",
            "correct option 'host_key' or the known_hosts file",
        ],
        host_key=lambda places: places.other_host_key,
    ),
    "ssh-no-python": _ssh(
        [
            "ssh: {user}@127.0.0.1:{port}: option 'python'",
            "there is no 'python3.99' there",
            "install Python 3.9 or newer, or name its path",
        ],
        python="python3.99",
    ),
    "ssh-full-disk": _ssh(
        [
            "ssh: {user}@127.0.0.1:{port}: cannot write the agent",
            "No space left on device",
            "free some space there, or set option 'directory'",
        ],
        "small-disk",
        directory=lambda places: str(places.full_disk / "hostler"),
    ),
    "docker-nowhere": Case(
        "docker",
        lambda _: {"image": IMAGE, "docker_host": NOWHERE},
        [
            f"docker: no answer from {NOWHERE}",
            "No such file or directory",
            "does the daemon run there, and may the hub's user reach it?",
            "driver_options.docker_host",
        ],
    ),
    "docker-no-python": _docker(
        [
            "docker: the container is exited with exit code 127",
            "has the image Python 3.9 or newer? (driver_options.python)",
            "exec python3 failed: No such file or directory",
        ]
    ),
    "docker-no-python-no-init": _docker(
        [
            "docker: {daemon}",
            'exec: "python3": executable file not found in $PATH',
            "driver_options.python); take an image that has, or name the path",
        ],
        init=False,
    ),
    "docker-unknown-image": _docker(
        [
            "docker: {daemon} cannot pull {registry}/nothing:1",
            "unheard of",
            "see driver_options.image, registry",
        ],
        image=lambda places: f"{places.registry}/nothing:1",
    ),
    "docker-no-pull": _docker(
        [
            "docker: {daemon}",
            "has no image hostler-test:nothing",
            "driver_options.pull is never: put it there (docker load), or set pull to missing",
        ],
        image="hostler-test:nothing",
        pull="never",
    ),
    "docker-wrong-credentials": _docker(
        [
            "docker: {daemon} cannot pull {registry}/secret:1",
            "unauthorized",
            "driver_options.image, registry (who may read it)",
        ],
        image=lambda places: f"{places.registry}/secret:1",
        registry={"username": "ann", "password": {"file": "other"}},
    ),
    "docker-no-certificates": Case(
        "docker",
        lambda _: {
            "image": IMAGE,
            "docker_host": "tcp://127.0.0.1:1",
            "tls": {part: {"file": f"lost-{part}"} for part in ("ca", "cert", "key")},
            "hub_url": "wss://hub.example.org",
        },
        ["docker: driver_options.tls: ", "secret file lost-ca", "put it there"],
    ),
    "docker-too-many-cpus": _docker(
        ["docker: {daemon}", "Range of CPUs is from 0.01 to ", "driver_options.cpus"], cpus=4000
    ),
    "docker-too-little-memory": _docker(
        ["docker: {daemon}", "Minimum memory limit allowed is ", "driver_options.memory"],
        memory="1m",
    ),
    "docker-no-network": _docker(
        ["docker: {daemon}", "network nowhere not found", "driver_options.networks"],
        network_mode="nowhere",
    ),
    "docker-full-disk": _docker(
        ["docker: {full_daemon}", "no space left on device", "free some there (docker system df"],
        "small-disk",
        docker_host=lambda places: places.full_daemon,
    ),
}


@dataclass
class Places:
    """Where the cases are tried; what has a driver of no use here stays empty."""

    directory: Path
    secrets: Path
    ssh: dict[str, Any] = field(default_factory=dict)
    other_host_key: str = ""
    full_disk: Path = Path()
    daemon: str = ""
    full_daemon: str = ""
    registry: str = ""

    def told(self, value: Any) -> Any:
        """An option that depends on the places is a function of them."""
        return value(self) if callable(value) else value

    def words_of(self, case: Case) -> list[str]:
        known = {**self.ssh, "daemon": self.daemon, "full_daemon": self.full_daemon}
        return [word.format(**known, registry=self.registry) for word in case.words]


@contextlib.contextmanager
def opened(directory: Path, secrets: Path) -> Iterator[Places]:
    """All the places that there can be on this machine."""
    places = Places(directory, secrets)
    secrets.mkdir(parents=True, mode=0o700)
    other = paramiko.ECDSAKey.generate()
    other.write_private_key_file(str(secrets / "other"))
    places.other_host_key = f"{other.get_name()} {other.get_base64()}"
    with contextlib.ExitStack() as stack:
        if sshd_peer.missing() is None:
            stack.enter_context(_machine(places))
        if docker_peer.missing() is None:
            stack.enter_context(_daemons(places))
        yield places


@contextlib.contextmanager
def _machine(places: Places) -> Iterator[None]:
    server = Sshd(places.directory / "sshd")
    secret = places.secrets / "machine"
    secret.write_text(server.client_key.read_text())
    secret.chmod(0o600)
    places.ssh = {
        "host": server.address,
        "port": server.port,
        "user": server.user,
        "key": {"file": "machine"},
        "host_key": server.public_host_key,
        "python": sys.executable,
    }
    with contextlib.ExitStack() as stack:
        if small_disk.missing() is None:
            mounted = small_disk.mounted(places.directory / "full", "64k")
            places.full_disk = stack.enter_context(mounted)
        server.start()
        stack.callback(server.stop)
        yield


@contextlib.contextmanager
def _daemons(places: Places) -> Iterator[None]:
    """Of our own, since one of them gets full; a socket's path has 107 bytes."""
    base = Path(tempfile.mkdtemp(prefix="hostler-docker-", dir="/var/tmp"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, base)
        places.registry = stack.enter_context(closed_registry.serving())
        places.daemon = _daemon(stack, base / "roomy")
        if small_disk.missing() is None:
            disk = stack.enter_context(small_disk.mounted(base / "small", "32m"))
            places.full_daemon = _daemon(stack, disk / "d")
            stack.callback(small_disk.fill(disk, 0).unlink)
        yield


def _daemon(stack: contextlib.ExitStack, directory: Path) -> str:
    directory.mkdir()
    bridge = stack.enter_context(docker_peer.bridge())
    daemon = docker_peer.Daemon(directory, options=(f"--bridge={bridge}",))
    stack.callback(daemon.close)
    daemon.start()
    docker_peer.provide_bare_image(daemon.url)
    return daemon.url
