"""Instances that boot: each runs its user-data in namespaces of its own on this machine.

Ending one kills its first process, and with it every other: nothing of an instance survives it, as
in a cloud. One that switches itself off is terminated, which is what the driver asks EC2 for. One
that is stopped keeps its disk, and boots again when it is started.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from peers.ec2 import NOBODY
from peers.ec2_init import copy_both_ways

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peers.ec2 import Ec2

_PATIENCE_S = 60.0
_INIT = Path(__file__).parent / "ec2_init.py"
_UNSHARE = ("unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc")
_INSTALL = (
    "machines for EC2 are missing: they need root, unshare and ip (apt-get install util-linux "
    "iproute2), and leave to make namespaces"
)


def missing() -> str | None:
    """Why no instance can boot on this machine and what to do about it, or None."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("ip") is None:
        return _INSTALL
    tried = subprocess.run([*_UNSHARE, "true"], stderr=subprocess.DEVNULL, check=False)
    return None if tried.returncode == 0 else _INSTALL


class Machine:
    """One instance: a directory that is its disk and its console, and processes."""

    def __init__(self, directory: Path, user_data: bytes) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        (directory / "user-data").write_bytes(user_data)
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: threading.Thread | None = None

    def tell(self, user_data: bytes) -> None:
        """At its next boot."""
        (self.directory / "user-data").write_bytes(user_data)

    def boot(self, port: int, off: Callable[[], None]) -> None:
        """`off` is called when it has ended, by whatever."""
        command = [*_UNSHARE, sys.executable, "-I", str(_INIT), str(self.directory), str(port)]
        with (self.directory / "console").open("ab") as console:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console
            )
        self._waiting = threading.Thread(target=self._wait, args=(self._process, off), daemon=True)
        self._waiting.start()

    def halt(self) -> None:
        """As the provider does: at once. Returns when nothing of it runs, or is told, any more."""
        process = self._process
        if process is None:
            return
        deadline = time.monotonic() + _PATIENCE_S
        while process.poll() is None:
            assert time.monotonic() < deadline, "a machine goes on running"
            for init in _children(process.pid):  # none yet, perhaps: it is just being booted
                with contextlib.suppress(ProcessLookupError):
                    os.kill(init, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        if self._waiting is not None:  # the provider is told of its end before it can start again
            self._waiting.join(_PATIENCE_S)

    def switched_off(self) -> None:
        """Wait until it has ended by itself."""
        assert self._process is not None
        self._process.wait(_PATIENCE_S)

    @property
    def lives(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def console(self) -> bytes:
        return (self.directory / "console").read_bytes()

    def tell_of_interruption(self, left_s: float) -> None:
        """What a spot instance is told before its end: on EC2 two minutes, here as you wish."""
        end = datetime.now(UTC) + timedelta(seconds=left_s)
        notice = self.directory / "notice.new"
        notice.write_text(f'{{"action": "terminate", "time": "{end:%Y-%m-%dT%H:%M:%SZ}"}}')
        notice.rename(self.directory / "notice")

    @staticmethod
    def _wait(process: subprocess.Popen[bytes], off: Callable[[], None]) -> None:
        process.wait()
        off()


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


class Machines:
    """The hypervisor: `hub_port` is where the instances' loopback leads to.

    While they `hang`, one that switches itself off is not over until somebody terminates it.
    """

    def __init__(self, ec2: Ec2, directory: Path, hub_port: Callable[[], int]) -> None:
        self.hang = False
        self._ec2 = ec2
        self._directory = directory
        self._hub_port = hub_port
        self._machines: dict[str, Machine] = {}

    def start(self, instance_id: str, user_data: bytes) -> None:
        self._machines[instance_id] = Machine(self._directory / instance_id, user_data)
        self.resume(instance_id)

    def tell(self, instance_id: str, user_data: bytes) -> None:
        self._machines[instance_id].tell(user_data)

    def resume(self, instance_id: str) -> None:
        machine = self._machines[instance_id]
        if not machine.lives:  # a start may be asked for twice
            machine.boot(self._hub_port(), lambda: self._ended(instance_id))

    def halt(self, instance_id: str) -> None:
        if instance_id in self._machines:
            self._machines[instance_id].halt()

    def console(self, instance_id: str) -> bytes | None:
        machine = self._machines.get(instance_id)
        return None if machine is None else machine.console

    def __getitem__(self, instance_id: str) -> Machine:
        return self._machines[instance_id]

    def living(self) -> set[str]:
        """The ids of those that run."""
        return {each for each, machine in self._machines.items() if machine.lives}

    def close(self) -> None:
        for machine in self._machines.values():
            machine.halt()

    def _ended(self, instance_id: str) -> None:
        """InstanceInitiatedShutdownBehavior is terminate; after the provider's own halt it is not
        running any more, and this changes nothing."""
        if self.hang:
            return
        client = self._ec2.client()
        try:
            (found,) = client.describe_instances(InstanceIds=[instance_id])["Reservations"]
            if found["Instances"][0]["State"]["Name"] == "running":
                client.terminate_instances(InstanceIds=[instance_id])
        finally:
            client.close()


class _Gateway(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    hub_port: Callable[[], int]


class _Traveller(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        address = ("127.0.0.1", self.server.hub_port())  # type: ignore[attr-defined]
        with contextlib.suppress(OSError), socket.create_connection(address) as other:
            copy_both_ways(self.request, other)


@contextlib.contextmanager
def booting(ec2: Ec2, hub_port: Callable[[], int]) -> Iterator[Machines]:
    """While it lasts, instances that are started behind the proxy run."""
    # Not pytest's tmp_path: a socket's path has 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="hostler-ec2-", dir="/var/tmp"))
    machines = Machines(ec2, directory, hub_port)
    gateway = _Gateway(str(directory / "hub.sock"), _Traveller)
    gateway.hub_port = hub_port
    thread = threading.Thread(target=gateway.serve_forever, args=[0.01], name="ec2 gateway")
    thread.start()
    ec2.hypervisor = machines
    try:
        yield machines
    finally:
        ec2.hypervisor = NOBODY
        machines.close()
        gateway.shutdown()
        gateway.server_close()
        thread.join()
        shutil.rmtree(directory)
