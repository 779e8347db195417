"""The `host` verb does what hubs of an earlier version ask for, and answers as they know it.

The exchanges are recorded: see `tests/hub/drivers/hosts/test_frames.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certificates import authority

if TYPE_CHECKING:
    from conftest import Host

TESTS = Path(__file__).parents[2]
RECORDED = json.loads((TESTS / "hub" / "drivers" / "hosts" / "frames.json").read_text())
EXCHANGES = RECORDED["ssh"]["exchanges"]
WHILE_STARTING = "inspect while it is started"
# The recorded agent had ended when it was listed, the one here has not.
LISTED = next(e for e in RECORDED["winrm"]["exchanges"] if e["call"] == "list_owned")


def reply_of(exchange: dict[str, Any]) -> dict[str, Any]:
    reply: dict[str, Any] = json.loads(exchange["stdout"].rstrip().rpartition("\n")[2])
    return reply


def shape(reply: Any) -> Any:
    """Its keys, and the kinds of its values; words and states as they are."""
    if isinstance(reply, dict):
        kept = ("state", "kind", "epoch", "worker")
        return {k: v if k in kept else shape(v) for k, v in reply.items() if k != "texts"}
    return [shape(each) for each in reply] if isinstance(reply, list) else type(reply)


@contextlib.contextmanager
def held(lock: Path) -> Iterator[None]:
    """As by a start that is under way."""
    with lock.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_recorded_requests_are_answered_as_they_were(
    host: Host, new_instance: Callable[[], str], tmp_path: Path
) -> None:
    instance = new_instance()
    own = host.directory / "instances" / instance
    ca = authority(tmp_path).ca_file.read_text()
    for exchange in EXCHANGES:
        request = json.loads(json.dumps(exchange["request"]))
        request["directory"] = str(host.directory)
        recorded = reply_of(exchange)
        if "instance" in request:
            request["instance"] = instance
        if exchange["action"] == "start":
            request["ca"] = ca
            request["config"]["instance"] = instance
        if exchange["call"] == "list_owned":
            recorded = reply_of(LISTED)
        with contextlib.ExitStack() as stack:
            if exchange["call"] == WHILE_STARTING:
                stack.enter_context(held(own.with_suffix(".lock")))
            reply = host.call(exchange["action"], **request)
        assert shape(reply) == shape(recorded), exchange["call"]
        if exchange["call"] == "create":
            assert (own / "ca.pem").read_text() == ca
            kept = json.loads((own / "agent.json").read_text())
            assert kept.items() >= request["config"].items()
    assert not own.exists()
