"""The first process of a test's EC2 machine: `ec2_init.py DIRECTORY PORT`.

It runs in namespaces of its own (processes, mounts, network), makes of them what an instance finds
(empty state directories, a loopback, the metadata service, version 2), and then does as cloud-init
does: takes the user-data from the metadata service and runs it, at an instance's first boot, or at
each where a part of it asks for that. What
everybody says goes to the console. The hub is reached at 127.0.0.1:PORT, through a socket in
DIRECTORY, since an instance's network is not this machine's.
"""

from __future__ import annotations

import contextlib
import email
import os
import re
import secrets
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

IMDS = "169.254.169.254"
# /run without systemd's sockets: nothing in here can talk to this machine's own init.
_PRIVATE = ("/run", "/var/lib", "/sys/fs/cgroup")
_OFF = "#!/bin/sh\nexec kill -TERM 1\n"


def main(directory: Path, port: int) -> None:
    _isolate(directory)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
    _serve(_Metadata.at(directory))
    _serve(_Way(directory, port))
    _run_user_data(directory)
    while True:
        if signal.sigwait({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}) != signal.SIGCHLD:
            return  # and whatever still runs goes with us
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass


def _isolate(directory: Path) -> None:
    os.chdir("/")
    for place in _PRIVATE:
        subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    disk = directory / "disk"  # survives a stop
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", str(disk), "/var/lib"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", f"{IMDS}/32", "dev", "lo"], check=True)
    for name in ("systemctl", "shutdown", "poweroff"):
        program = directory / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(_OFF)
        program.chmod(0o755)


def _run_user_data(directory: Path) -> None:
    service = f"http://{IMDS}/latest"
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    asked = urllib.request.Request(f"{service}/api/token", method="PUT", headers=lifetime)
    with urllib.request.urlopen(asked) as answer:
        known = {"X-aws-ec2-metadata-token": answer.read().decode()}
    wanted = urllib.request.Request(f"{service}/user-data", headers=known)
    with urllib.request.urlopen(wanted) as answer:
        text, is_for_every_boot = _parts(answer.read())
    booted = directory / "booted"
    if booted.exists() and not is_for_every_boot:
        return
    booted.touch()
    script = Path("/run/user-data")
    script.write_bytes(text)
    script.chmod(0o700)
    usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    environment = {"PATH": f"{directory / 'bin'}:{usual}"}  # no HOME, as there
    os.posix_spawn(str(script), [str(script)], environment, setsigmask=[])


def _parts(user_data: bytes) -> tuple[bytes, bool]:
    """The script, and whether every boot runs it."""
    message = email.message_from_bytes(user_data)
    if not message.is_multipart():
        return user_data, False
    parts = {
        part.get_content_type(): part.get_payload(decode=True)
        for part in message.walk()
        if not part.is_multipart()
    }
    configured = bytes(parts["text/cloud-config"])  # type: ignore[arg-type]
    assert configured.startswith(b"#cloud-config\n")
    always = re.search(
        rb"^cloud_final_modules:\n- \[scripts-user, always\]$", configured, re.MULTILINE
    )
    return bytes(parts["text/x-shellscript"]), always is not None  # type: ignore[arg-type]


def _serve(server: socketserver.BaseServer) -> None:
    threading.Thread(target=server.serve_forever, daemon=True).start()


class _Metadata(BaseHTTPRequestHandler):
    directory: Path
    token = secrets.token_hex(8)

    @classmethod
    def at(cls, directory: Path) -> ThreadingHTTPServer:
        cls.directory = directory
        return ThreadingHTTPServer((IMDS, 80), cls)

    def log_message(self, *_arguments: object) -> None: ...

    def do_PUT(self) -> None:
        asked = "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
        right = asked and self.path == "/latest/api/token"
        self._answer(200 if right else 400, self.token.encode())

    def do_GET(self) -> None:
        files = {
            "/latest/user-data": self.directory / "user-data",
            "/latest/meta-data/spot/instance-action": self.directory / "notice",
        }
        file = files.get(self.path)
        if self.headers.get("X-aws-ec2-metadata-token") != self.token:
            self._answer(401, b"")
        elif file is None or not file.exists():
            self._answer(404, b"")
        else:
            self._answer(200, file.read_bytes())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Way(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, directory: Path, port: int) -> None:
        self.other_end = str(directory.parent / "hub.sock")
        super().__init__(("127.0.0.1", port), _Traveller)


class _Traveller(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as other, contextlib.suppress(OSError):
            other.connect(self.server.other_end)  # type: ignore[attr-defined]
            copy_both_ways(self.request, other)


def copy_both_ways(one: socket.socket, other: socket.socket) -> None:
    """Until either end closes or breaks; then both are shut."""
    back = threading.Thread(target=_copy, args=(other, one), daemon=True)
    back.start()
    _copy(one, other)
    back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
