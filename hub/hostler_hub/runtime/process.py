"""The hub as a process: find, start and stop the one that runs on a state directory.

A hub runs if the lock is held: `hub.lock` is locked with flock from before the database is opened
until after it is closed, and the kernel frees it however the process ends. The pid in the file
counts only while the lock is held, and is signalled through a pidfd of a process that has the file
open: a process that was given a reused pid is never signalled (E6).

Standard library only: `status` and `stop` must not wait for a web framework to be imported.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from hostler_hub.errors import SettingsError
from hostler_hub.runtime import private_files
from hostler_hub.runtime.errors import HubRuns, HubUnresponsive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hostler_hub.runtime.settings import Settings

READY_FD = "HOSTLER_READY_FD"
_START_S = 60.0
_PROBE_S = 1.0


@dataclass(frozen=True)
class Running:
    """A hub that holds the lock. `url` is None until it listens; `pid` is None for a moment before
    that.

    `url` is for clients. `local_url` is for this machine, where the hub shows the certificate in
    the file `certificate`.
    """

    pid: int | None
    url: str | None
    started_at: str | None
    local_url: str | None = None
    certificate: str | None = None


def is_root() -> bool:
    """Whether the hub, and so the agents that it starts on its own machine, has root's rights."""
    return os.geteuid() == 0


@contextlib.contextmanager
def hold_lock(settings: Settings) -> Iterator[None]:
    """Hold the state directory's lock for the context. Raises HubRuns."""
    with open(settings.lock_file, "a+", opener=private_files.open_or_create) as file:
        _lock_or_refuse(file, settings)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            settings.run_file.unlink(missing_ok=True)
            file.truncate(0)


def find_running(settings: Settings) -> Running | None:
    """The hub that runs on this state directory, if one does."""
    try:
        with open(settings.lock_file) as file:
            if not _held(file):
                return None
            text = file.read().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SettingsError(f"{settings.lock_file} cannot be read: {error.strerror}") from error
    pid = int(text) if text.isdecimal() else None
    run = private_files.read_json(settings.run_file)
    if run.get("pid") != pid:  # left by an earlier hub that was killed
        run = {}
    return Running(
        pid=pid,
        url=run.get("url"),
        started_at=run.get("started_at"),
        local_url=run.get("local_url") or run.get("url"),
        certificate=run.get("certificate"),
    )


def start(settings: Settings) -> Running:
    """Start a hub in the background and wait until it answers.

    Raises HubRuns if one runs already, SettingsError with the reason that the new hub gave, or
    HubUnresponsive if it takes longer than a minute.
    """
    settings.prepare_state_dir()
    if find_running(settings) is not None:
        raise HubRuns(f"a hub runs already on {settings.state_dir}")
    ready, theirs = os.pipe()
    try:
        child = _spawn(settings, theirs)
    finally:
        os.close(theirs)
    with os.fdopen(ready, "rb") as pipe:
        said = _read_line(pipe, time.monotonic() + _START_S)
    if said is None:
        raise HubUnresponsive(
            f"the hub (pid {child.pid}) is not ready in {_START_S:.0f} s; see {settings.log_file}"
        )
    if said != "ready":
        child.wait()
        kind = HubRuns if said.startswith("a hub runs already") else SettingsError
        raise kind(said or f"the hub ended at once; see {settings.log_file}")
    child.returncode = 0  # it outlives us on purpose: nothing waits for it, nothing warns
    return await_health(settings)


def await_health(settings: Settings) -> Running:
    """Wait until the running hub answers on /healthz. Raises HubUnresponsive after a minute."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        running = find_running(settings)
        if running is None:
            break
        if running.url and call(running, "/healthz") is not None:
            return running
        time.sleep(0.05)
    raise HubUnresponsive(f"the hub on {settings.state_dir} does not answer")


def stop(settings: Settings, timeout_s: float) -> bool:
    """Ask the hub to end and wait until its lock is free. Returns False if none runs.

    Raises HubUnresponsive if the hub is still there after `timeout_s`.
    """
    running = find_running(settings)
    if running is None:
        return False
    deadline = time.monotonic() + timeout_s
    asked = False
    while time.monotonic() < deadline:
        running = find_running(settings)
        if running is None:
            return True
        if not asked and running.pid is not None:
            asked = _terminate(running.pid, settings.lock_file, deadline)
        time.sleep(0.02)
    who = f"process {running.pid}" if running.pid else "a hub that is just starting"
    raise HubUnresponsive(f"still there after {timeout_s:.0f} s: {who} holds {settings.lock_file}")


def call(
    running: Running, path: str, *, token: str | None = None, method: str = "GET", body: Any = None
) -> Any:
    """Send one request to the hub on this machine. Returns its JSON, or None if nobody answers
    within 5 s.

    If the hub refuses, raises SettingsError with the problem's detail.
    """
    url = running.local_url or ""
    request = urllib.request.Request(url + path, method=method)  # noqa: S310  # hub.json's own URL
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    if body is not None:
        request.add_header("Content-Type", "application/json")
        request.data = json.dumps(body).encode()
    # A proxy of the environment is not meant for a hub on this machine.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), *_pinned(running.certificate)
    )
    try:
        with opener.open(request, timeout=5) as answer:
            text = answer.read()
            return json.loads(text) if text else {}
    except urllib.error.HTTPError as error:
        with error:
            raise SettingsError(_detail(error)) from error
    except (OSError, ValueError):
        return None


def _pinned(certificate: str | None) -> list[urllib.request.HTTPSHandler]:
    """Handlers that trust the hub's own certificate and no other, for any host name: the loopback
    address is not among the certificate's names.
    """
    if certificate is None:
        return []
    import ssl  # noqa: PLC0415 - costs time that a plain hub need not pay

    context = ssl.create_default_context(cafile=certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return [urllib.request.HTTPSHandler(context=context)]


def announce(said: str) -> None:
    """Report "ready", or the reason why not, to the process that started this one in the
    background, if any.
    """
    descriptor = os.environ.pop(READY_FD, "")
    if descriptor.isdecimal():
        with contextlib.suppress(OSError), os.fdopen(int(descriptor), "w") as pipe:
            pipe.write(said.replace("\n", " ") + "\n")


def _held(file: IO[str]) -> bool:
    try:
        # Shared, so that two who look do not take each other for a hub.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _lock_or_refuse(file: IO[str], settings: Settings) -> None:
    deadline = time.monotonic() + _PROBE_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            # Somebody who only looks holds it for an instant; a hub holds it longer.
            if time.monotonic() > deadline:
                raise HubRuns(f"a hub runs already on {settings.state_dir}") from error
        time.sleep(0.02)


def _spawn(settings: Settings, ready_fd: int) -> subprocess.Popen[bytes]:
    # The database URL may hold a password: by the environment, never in the arguments (V14).
    environ = {
        **os.environ,
        READY_FD: str(ready_fd),
        "HOSTLER_DATABASE_URL": settings.database_url,
    }
    arguments = ["--state-dir", str(settings.state_dir)]
    arguments += ["--host", settings.host, "--port", str(settings.port)]
    with open(settings.log_file, "ab", opener=private_files.open_or_create) as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "hostler_hub", "serve", *arguments],
            cwd=settings.state_dir,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(ready_fd,),
            start_new_session=True,
        )


def _read_line(pipe: IO[bytes], deadline: float) -> str | None:
    """The line that the child announces; "" if it ended without one, None after the deadline."""
    left_s = max(0.0, deadline - time.monotonic())
    if not select.select([pipe], [], [], left_s)[0]:
        return None
    return pipe.readline().decode(errors="replace").strip()


def _terminate(pid: int, lock_file: Path, deadline: float) -> bool:
    """Send SIGTERM to `pid` if it has the lock file open, and wait for its end until `deadline`.
    Returns False if it has not, or is gone.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not _has_open(pid, lock_file):
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))
    except PermissionError as error:
        raise SettingsError(f"the hub (pid {pid}) belongs to another user") from error
    finally:
        os.close(pidfd)
    return True


def _has_open(pid: int, path: Path) -> bool:
    wanted = path.stat()
    for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208  # Path.iterdir would do the same
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(f"/proc/{pid}/fd/{name}"), wanted):  # noqa: PTH116
                return True
    return False


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the hub answered {error.code}"
