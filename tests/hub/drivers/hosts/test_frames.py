"""What hubs and the agent's `host` verb say to each other, as an earlier version did.

`frames.json` has recorded exchanges of the SSH driver with a POSIX machine and of the WinRM
driver with a Windows machine: requests as they went over standard input, and what came back. Here
this hub says and hears the same; `tests/agent/instances/test_frames.py` does it for the agent. It
is what agents of other digests and hubs of other versions on one machine understand: a change here
is a change of the protocol.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hostler_hub.drivers.contract import AgentArchive, Environment, InstanceRef, InstanceSpec
from hostler_hub.drivers.errors import ProviderFailed
from hostler_hub.drivers.ssh.driver import SshDriver
from hostler_hub.drivers.transports.contract import Command, CommandResult
from hostler_hub.drivers.winrm.driver import WinrmDriver

FRAMES = json.loads((Path(__file__).parent / "frames.json").read_text())
HUB, INSTANCE = "01M8PE5T6YD8303K8Z7VZHDPA4", "01M8PE83YA445GGTAC9F4BKFRB"
DRIVERS = {"ssh": SshDriver, "winrm": WinrmDriver}
EXCHANGES = [
    pytest.param(name, each, id=f"{name}: {each['call']}")
    for name, recorded in FRAMES.items()
    for each in recorded["exchanges"]
]


class Machine:
    """Answers one command as the recorded machine did; what it was told before is noted."""

    def __init__(self, exchange: Mapping[str, Any]) -> None:
        self.requests: list[dict[str, Any]] = []
        self._exchange = exchange

    def renew(self) -> None:
        """There is no connection."""

    async def run(self, command: Command) -> CommandResult:
        if not command.content:  # what needs no agent to be ended: here it does
            return CommandResult(0, b"", b"")
        (nonce,) = (word for word in command.argv if re.fullmatch("[0-9a-f]{16}", word))
        assert self._exchange["action"] in command.argv
        self.requests.append(json.loads(command.content.rpartition(b"\n")[2]))
        said = self._exchange["stdout"].replace("NONCE", nonce)
        return CommandResult(self._exchange["status"], said.encode(), b"")


@pytest.fixture
def frames_environment(environment: Environment, tmp_path: Path) -> Environment:
    (tmp_path / "ca.pem").write_text(FRAMES["ssh"]["exchanges"][0]["request"]["ca"])
    return replace(
        environment,
        hub=HUB,
        connect_url="wss://hub.example.org/api/v1/agents/connect",
        archive=AgentArchive(tmp_path / "agent.pyz", "a" * 64),
    )


async def driver_call(driver: Any, method: str, options: Mapping[str, Any]) -> Any:
    spec = InstanceSpec("w-1", INSTANCE, 3, "a-token-of-no-use", options)
    argument = {"create": spec, "list_owned": [options]}.get(
        method, InstanceRef("w-1", INSTANCE, 3, None, options)
    )
    return await getattr(driver, method)(argument)


async def called(driver: Any, call: str, options: Mapping[str, Any]) -> Any:
    """The result, as JSON; of what is refused its text."""
    method = call.partition(" ")[0]
    try:
        result = await driver_call(driver, method, options)
    except Exception as error:  # noqa: BLE001 - which one is the driver's own test's
        return {"error": str(error)}
    if method == "list_owned":
        result = [asdict(each) for each in result]
    return json.loads(json.dumps(asdict(result) if method == "inspect" else result))


def reached(name: str, environment: Environment, exchange: Mapping[str, Any]) -> tuple[Any, Any]:
    """The driver, and the machine that answers it as it says in the exchange."""
    driver: Any = DRIVERS[name](environment)
    machine = Machine(exchange)

    async def awake(_options: Any) -> Machine:
        return machine

    driver._loaded = SimpleNamespace(
        transport=lambda _options: machine,
        awake=awake,
        tunnels=SimpleNamespace(release=lambda _instance: awake(None)),
    )
    return driver, machine


SENSELESS: list[Any] = [
    {},
    {"instances": 1, "texts": [], "process": 1, "directory": None},
    {"instances": [1], "texts": 7, "process": {"pid": "x"}, "directory": 5},
    {"instances": [{}], "texts": "x", "process": {}, "directory": "/x", "state": "running"},
    {"instances": {"a": {}}, "state": []},
]


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize("method", ["create", "inspect", "list_owned", "evidence"])
@pytest.mark.parametrize("reply", SENSELESS, ids=str)
async def test_a_machine_that_lies_is_told_of_as_such(
    frames_environment: Environment, name: str, method: str, reply: Any
) -> None:
    actions = {"create": "start", "list_owned": "list"}
    body = json.dumps(reply)
    said = f"\n@hostler NONCE {len(body)}\n{body}\n"
    exchange = {"action": actions.get(method, method), "stdout": said, "status": 0}
    driver, _ = reached(name, replace(frames_environment, ca_file=None), exchange)
    try:
        await driver_call(driver, method, FRAMES[name]["options"])
    except ProviderFailed as error:
        assert f"{name}: " in str(error)  # noqa: PT017 - some of these make sense to some calls
        assert "makes no sense" in str(error)  # noqa: PT017


@pytest.mark.parametrize(("name", "exchange"), EXCHANGES)
async def test_requests_and_replies_are_what_they_were(
    frames_environment: Environment, tmp_path: Path, name: str, exchange: dict[str, Any]
) -> None:
    if name == "ssh":
        frames_environment = replace(frames_environment, ca_file=tmp_path / "ca.pem")
    driver, machine = reached(name, frames_environment, exchange)
    result = await called(driver, exchange["call"], FRAMES[name]["options"])
    (request,) = machine.requests
    # Added since, for agents that know it: whose instances are meant on a machine of several.
    named = request.pop("driver", None)
    assert named == (name if exchange["action"] in {"start", "list"} else None)
    if "environment" in exchange["request"]:  # since then only for builds, not for the agent
        request["environment"] = request["config"].pop("environment")
    assert request == exchange["request"]
    assert holds(result, exchange["result"])


def holds(result: Any, recorded: Any) -> bool:
    """Whether nothing is missing or different; a later version may know more."""
    if isinstance(recorded, dict) and recorded:
        return isinstance(result, dict) and all(
            result[key] >= value if key == "version" else holds(result.get(key), value)
            for key, value in recorded.items()
        )
    if isinstance(recorded, list):
        return len(result) == len(recorded) and all(map(holds, result, recorded))
    return bool(result == recorded)


@pytest.mark.parametrize("name", sorted(DRIVERS))
def test_who_builds_run_as_reaches_the_agent_s_configuration(
    environment: Environment, name: str
) -> None:
    chosen = {"run_as": "agent", "no_new_privileges": True}
    driver: Any = DRIVERS[name](environment)
    options = driver.options_model.of(FRAMES[name]["options"])
    spec = InstanceSpec("w-1", INSTANCE, 3, "a-token-of-no-use", {}, chosen)
    config = driver._start_request(spec, options, "ws://127.0.0.1:1/")["config"]
    assert {key: config[key] for key in chosen} == chosen


@pytest.mark.parametrize("call", ["create", "inspect", "list_owned", "evidence"])
@pytest.mark.parametrize(
    "reply", [{}, {"state": 7}, {"instances": 7, "texts": 7}, {"instances": [{}]}, {"state": []}]
)
async def test_a_machine_that_answers_nonsense_is_told_as_the_driver_s_own_error(
    frames_environment: Environment, call: str, reply: dict[str, Any]
) -> None:
    """A hostile machine, or an agent of a version that nobody knows."""
    action = {"create": "start", "list_owned": "list"}.get(call, call)
    said = f"\n@hostler NONCE {len(json.dumps(reply))}\n{json.dumps(reply)}\n"
    driver: Any = DRIVERS["winrm"](frames_environment)
    machine = Machine({"action": action, "stdout": said, "status": 0})

    async def awake(_options: Any) -> Machine:
        return machine

    driver._loaded = SimpleNamespace(transport=lambda _options: machine, awake=awake)
    result = await called(driver, call, FRAMES["winrm"]["options"])
    if isinstance(result, dict) and "error" in result:
        assert result["error"].startswith("winrm: ")
        assert "reply makes no sense" in result["error"]
    else:
        assert result in ({}, []) or result["presence"] == "unknown"
