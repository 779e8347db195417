"""Interprets the daemon's answers: whether an instance exists, and what happened to it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from hostler_hub.drivers.docker import hints
from hostler_hub.drivers.docker.copies import is_anonymous
from hostler_hub.drivers.docker.daemon import Endpoint
from hostler_hub.drivers.docker.handle import DockerHandle
from hostler_hub.lifecycle.model import Presence

if TYPE_CHECKING:
    from docker import APIClient

LAST_LINES = 20
LAST_BYTES = 2000
TEXT_BYTES = 64 * 1024

_UP = {"running", "paused", "restarting"}
_NO_PROGRAM = (126, 127)


def handle(endpoint: Endpoint, seen: Mapping[str, Any]) -> DockerHandle:
    """The handle of a container, as the daemon describes it."""
    return DockerHandle(
        docker_host=endpoint.docker_host,
        tls=endpoint.tls,
        container=seen["Id"],
        name=seen["Name"].lstrip("/"),
        volumes=anonymous_volumes(seen),
    )


def anonymous_volumes(seen: Mapping[str, Any]) -> tuple[str, ...]:
    """The container's anonymous volumes: the agent's, and those that the image declares."""
    mounts: Sequence[Mapping[str, Any]] = seen.get("Mounts") or ()
    names = [mount.get("Name", "") for mount in mounts if mount.get("Type") == "volume"]
    return tuple(sorted(name for name in names if is_anonymous(name)))


def presence(seen: Mapping[str, Any]) -> Presence:
    """Whether the container runs. One that was never started counts as gone: nothing will
    start it.
    """
    return Presence.RUNNING if seen["State"]["Status"] in _UP else Presence.GONE


def describe(seen: Mapping[str, Any]) -> str:
    """One line of text about the container's state, with the reasons that the daemon gives."""
    state = seen["State"]
    status = state["Status"]
    if status == "created":
        return "the container was made, but never started"
    if status in _UP:
        return f"container {seen['Name'].lstrip('/')} is {status}"
    words = [f"the container is {status} with exit code {state['ExitCode']}"]
    if state.get("OOMKilled"):
        words.append("the kernel ended it for want of memory (OOMKilled)")
    if state.get("Error"):
        words.append(state["Error"])
    if state["ExitCode"] in _NO_PROGRAM:
        words.append(f"its command cannot be run: {hints.NO_PYTHON}")
    return "; ".join(words)


def last_words(client: APIClient, container: str) -> str:
    """The last lines of the container's log; empty if it has none."""
    return _log(client, container, LAST_LINES)[-LAST_BYTES:].strip()


def evidence(client: APIClient, container: str) -> dict[str, str]:
    """Texts on the container's state, console and processes. The processes are left out if it no
    longer runs.
    """
    from docker.errors import APIError  # noqa: PLC0415 - the SDK comes with the first call

    seen = client.inspect_container(container)
    texts = {
        "state": json.dumps(
            {"State": seen["State"], "Image": seen["Config"]["Image"], "Id": seen["Id"]}, indent=2
        ),
        "console": _log(client, container, 1000)[-TEXT_BYTES:],
    }
    with contextlib.suppress(APIError):  # it runs no more
        table = client.top(container)
        rows = [table["Titles"], *table["Processes"]]
        texts["processes"] = "\n".join("  ".join(row) for row in rows)[:TEXT_BYTES]
    return texts


def created_at(summary: Mapping[str, Any]) -> float | None:
    """The creation time in seconds since the epoch; None if unknown. The daemon lists it as a
    number for containers and as text for volumes.
    """
    made = summary.get("Created", summary.get("CreatedAt"))
    if isinstance(made, int | float):
        return float(made)
    with contextlib.suppress(TypeError, ValueError):
        return datetime.fromisoformat(str(made)).timestamp()
    return None


def _log(client: APIClient, container: str, lines: int) -> str:
    from docker.errors import APIError  # noqa: PLC0415 - the SDK comes with the first call

    try:
        said = client.logs(container, stdout=True, stderr=True, tail=lines)
    except APIError as error:  # a log driver that cannot be read
        return f"(no log: {error.explanation})"
    return bytes(said).decode(errors="replace")
