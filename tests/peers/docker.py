"""A Docker daemon and an image with Python: no registry is needed, nothing else is ever stopped.

The image has systemd too, for machines that Molecule tries roles on; nobody else starts it.

A daemon that answers is used as it is; else one is started for the tests, in a directory of its
own and on a bridge of its own. `Daemon` is such a private one, for tests that freeze or kill it.

    python -m peers.docker COMMAND...       runs a command with DOCKER_HOST set to such a daemon
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from docker import APIClient
from docker.errors import ImageNotFound
from stopping import resume, stop

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

IMAGE = "hostler-test:debian12"
BARE_IMAGE = "hostler-test:bare"
USUAL = "unix:///var/run/docker.sock"
READY_S = 60.0
SUITE = "bookworm"
PACKAGES = "python3,python3-apt,python3-packaging,python3-venv,systemd-sysv,dbus"

_INSTALL = "Docker is missing: apt-get install docker.io debootstrap iproute2 (dockerd needs root)"


def missing() -> str | None:
    """Why there can be no daemon with an image, and what to do about it, or None."""
    if _tarball().exists() and _answers(USUAL):
        return None
    can_start = shutil.which("dockerd") and shutil.which("ip") and os.geteuid() == 0
    can_make = _tarball().exists() or (shutil.which("debootstrap") and os.geteuid() == 0)
    return None if can_make and (can_start or _answers(USUAL)) else _INSTALL


@contextlib.contextmanager
def shared() -> Iterator[str]:
    """The URL of a daemon that has the image."""
    if _answers(USUAL):
        provide_image(USUAL)
        yield USUAL
        return
    with private(apart=False) as daemon:
        yield daemon.url


@contextlib.contextmanager
def private(*, apart: bool = True) -> Iterator[Daemon]:
    """A daemon of the caller's own, with the image, gone afterwards with all it had.

    `apart`: in a network of its own; else it reaches what listens on this machine.
    """
    # Not pytest's tmp_path: a socket's path has 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="hostler-docker-", dir="/var/tmp"))
    with contextlib.ExitStack() as stack:
        if apart:
            daemon = Daemon(directory, launcher=("unshare", "--net"))
        else:
            daemon = Daemon(directory, options=(f"--bridge={stack.enter_context(bridge())}",))
        stack.callback(daemon.close)
        daemon.start()
        provide_image(daemon.url)
        yield daemon


@contextlib.contextmanager
def bridge() -> Iterator[str]:
    """A bridge's name, for one daemon alone.

    Two on docker0 would give out the same addresses, and one without any would delete it.
    """
    for number in range(256):
        name = f"hostler-{number}"
        made = _ip("link", "add", name, "type", "bridge")
        if made.returncode == 0:  # else it is another daemon's
            break
    else:
        raise RuntimeError(f"no bridge for a daemon: {made.stderr}")
    try:
        _ip("address", "add", f"10.213.{number}.1/24", "dev", name).check_returncode()
        _ip("link", "set", name, "up").check_returncode()
        yield name
    finally:
        _ip("link", "delete", name)


def _ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], check=False, capture_output=True, text=True)


class Daemon:
    """A dockerd with its own containerd, data and socket; it changes no firewall.

    `launcher` runs it in another namespace, `options` are more of its own.
    """

    def __init__(
        self, directory: Path, launcher: Sequence[str] = (), options: Sequence[str] = ()
    ) -> None:
        self.url = f"unix://{directory}/docker.sock"
        self._launcher = launcher
        self._options = options
        self._directory = directory
        self._containerd: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers; again after kill() with what it had before."""
        own = self._directory
        if self._containerd is None:
            # Apart from dockerd, as an installation has it: dockerd's own child dies with it.
            options = ["--address", f"{own}/containerd.sock", "--root", f"{own}/containerd"]
            options += ["--state", f"{own}/containerd-state", "--config", "/dev/null"]
            self._containerd = self._spawn("containerd", *options)
        options = ["--host", self.url, "--data-root", f"{own}/data", "--exec-root", f"{own}/exec"]
        options += ["--containerd", f"{own}/containerd.sock", "--pidfile", f"{own}/docker.pid"]
        options += ["--iptables=false", "--ip-forward=false", "--ip-masq=false", *self._options]
        (own / "docker.pid").unlink(missing_ok=True)  # of one that was killed
        self._process = self._spawn(*self._launcher, "dockerd", *options)
        deadline = time.monotonic() + READY_S
        while not _answers(self.url):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dockerd did not start: {self._last_words()}")
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL: containers go on until the next start, as dockerd's live-restore is off."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """It takes connections and answers nothing."""
        assert self._process is not None
        stop(self._process.pid)

    def thaw(self) -> None:
        assert self._process is not None
        resume(self._process.pid)

    def close(self) -> None:
        """End it, its containers and its files, whatever state it is in."""
        if self._process is None:  # killed: its containerd is alive, and so may containers be
            self.start()
        self.thaw()
        with client_of(self.url) as client:
            for container in client.containers(all=True, quiet=True):
                client.remove_container(container["Id"], v=True, force=True)
        self._end(signal.SIGKILL)  # it has nothing left to save, and takes its time in order
        if self._containerd is not None:
            self._containerd.kill()
            self._containerd.wait(timeout=60)
        _unmount(self._directory)
        shutil.rmtree(self._directory)

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        with (self._directory / "dockerd.log").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(timeout=60)

    def _last_words(self) -> str:
        return (self._directory / "dockerd.log").read_text()[-2000:]


@contextlib.contextmanager
def client_of(url: str) -> Iterator[APIClient]:
    client = APIClient(url, version="auto", timeout=60)
    try:
        yield client
    finally:
        client.close()


def provide_image(url: str) -> None:
    """See to it that the daemon has IMAGE: a small Debian with its Python 3 and systemd."""
    with client_of(url) as client:
        try:
            client.inspect_image(IMAGE)
        except ImageNotFound:
            repository, _, tag = IMAGE.partition(":")
            client.import_image_from_file(str(_root_file_system()), repository, tag)


def provide_bare_image(url: str) -> str:
    """An image with nothing in it, and so without Python; its name."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        directory = tarfile.TarInfo("etc")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(directory)
    repository, _, tag = BARE_IMAGE.partition(":")
    with client_of(url) as client:
        client.import_image_from_data(content.getvalue(), repository=repository, tag=tag)
    return BARE_IMAGE


def _root_file_system() -> Path:
    """Made once per machine: it takes a minute."""
    tarball = _tarball()
    tarball.parent.mkdir(parents=True, exist_ok=True)
    with open(tarball.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tarball.exists():
            with tempfile.TemporaryDirectory(dir="/var/tmp") as root:
                made = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, root]
                subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
                for place in ("var/cache/apt", "var/lib/apt/lists"):
                    shutil.rmtree(Path(root, place))
                fresh = tarball.with_suffix(".new")
                subprocess.run(["tar", "-C", root, "-cf", fresh, "."], check=True)
                fresh.replace(tarball)
    return tarball


def _tarball() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "hostler-tests" / "debian12.tar"


def _answers(url: str) -> bool:
    """Not by the SDK, which leaves its socket open when nobody listens."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(READY_S)
        try:
            connection.connect(url.removeprefix("unix://"))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
        except OSError:
            return False


def _unmount(directory: Path) -> None:
    """What a killed daemon's containers have left mounted."""
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        place = line.split()[1]
        if place.startswith(f"{directory}/"):
            subprocess.run(["umount", "--lazy", place], check=False)


def main(command: Sequence[str]) -> int:
    """Run the command with DOCKER_HOST set; its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    kept = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    with shared() as url:
        return subprocess.run(command, env={**kept, "DOCKER_HOST": url}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
