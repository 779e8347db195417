"""Transfers when things go wrong: crashes, losses, and a worker that is not to be trusted."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from e2e.api import Api
from websockets.asyncio.client import ClientConnection, connect

from hostler_agent.wire import messages
from hostler_agent.wire.errors import RemoteError
from hostler_agent.wire.extension import Handshake
from hostler_agent.wire.session import Answered, Failed, Requested, Role, Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from e2e.hub_process import HubProcess

PASSWORD = "correct horse"
PATIENCE_S = 60


@pytest.fixture(autouse=True)
def users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the tests run as root, builds have users of their own, as they have by default."""
    monkeypatch.setattr(Api, "run_as", "build_user")


@dataclass
class Puppet:
    """A worker as the protocol sees one, that does what the test says, and nothing else."""

    connection: ClientConnection
    wire: Session = field(default_factory=lambda: Session(Role.AGENT))
    started: asyncio.Queue[messages.StartCommand] = field(default_factory=asyncio.Queue)
    cleaning: list[asyncio.Task[None]] = field(default_factory=list)

    async def read(self) -> None:
        async for frame in self.connection:
            assert isinstance(frame, bytes)
            event = self.wire.receive(frame)
            if isinstance(event, Requested):
                if isinstance(event.message, messages.StartCommand):
                    self._start(event.message)
                info = {"basedir": "/nowhere"}
                wants_info = isinstance(event.message, messages.GetWorkerInfo)
                answer = self.wire.answer(event.seq_number, info if wants_info else None)
                await self.connection.send(answer)
            elif isinstance(event, (Answered, Failed)):
                assert isinstance(event.token, asyncio.Future)
                if isinstance(event, Answered):
                    event.token.set_result(event.result)
                else:
                    event.token.set_exception(event.error)

    def _start(self, command: messages.StartCommand) -> None:
        """The hub's own clearing up is done at once: it may come before an end is acknowledged."""
        if ".clean." in command.command_id:
            self.cleaning.append(asyncio.create_task(self.end(command)))
        else:
            self.started.put_nowait(command)

    async def command(self) -> messages.StartCommand:
        """The next command that is not the hub's own clearing up."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.started.get()

    async def ask(self, message: messages.Message) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        await self.connection.send(self.wire.request(message, answer))
        async with asyncio.timeout(PATIENCE_S):
            return await answer

    async def end(self, command: messages.StartCommand, rc: int = 0) -> None:
        """As every peer does: the exit code and the end are acknowledged together."""
        await asyncio.gather(
            self.ask(messages.Update(command.command_id, [["rc", rc]])),
            self.ask(messages.Complete(command.command_id)),
        )


@pytest.fixture
async def attach(shared_hub: HubProcess, api: Api) -> AsyncIterator[Callable[[str], Any]]:
    """Attaches a puppet as the permanent worker of that name."""
    readers: list[asyncio.Task[None]] = []
    connections: list[ClientConnection] = []

    async def make(name: str) -> Puppet:
        await api.define(name, driver="permanent", password=PASSWORD)
        connections.append(
            await connect(
                shared_hub.agents_url,
                additional_headers=Handshake(name, PASSWORD).headers(),
                proxy=None,
            )
        )
        puppet = Puppet(connections[-1])
        readers.append(asyncio.create_task(puppet.read()))
        return puppet

    yield make
    for connection in connections:
        await connection.close()
    await asyncio.gather(*readers, return_exceptions=True)


def write(command: messages.StartCommand, data: bytes) -> messages.Message:
    return messages.UpdateUploadFileWrite(command.command_id, data)


def close(command: messages.StartCommand) -> messages.Message:
    return messages.UpdateUploadFileClose(command.command_id)


UPLOAD = {"name": "send", "upload": {"from": "f"}}


async def listed(api: Api, build: str) -> dict[str, str]:
    items = (await api.get(f"/builds/{build}/artifacts"))["items"]
    return {item["path"]: item["sha256"] for item in items}


async def test_a_worker_writes_to_its_own_transfer_only(
    api: Api, attach: Callable[[str], Any]
) -> None:
    """U1: every operation is checked against this connection's instance and command."""
    victim, rogue = await attach("victim"), await attach("rogue")
    build = await api.submit(UPLOAD, worker="victim")
    command = await victim.command()
    for message in (write(command, b"forged"), close(command)):
        with pytest.raises(RemoteError, match="unknown command_id"):
            await rogue.ask(message)
    with pytest.raises(RemoteError, match="unknown command_id"):
        await rogue.ask(messages.Complete(command.command_id))
    await victim.ask(write(command, b"genuine"))
    await victim.ask(close(command))
    with pytest.raises(RemoteError):
        await victim.ask(write(command, b" and more"))
    await victim.end(command)
    assert (await api.ended(build))["state"] == "success"
    assert await listed(api, build) == {"f": hashlib.sha256(b"genuine").hexdigest()}
    with pytest.raises(RemoteError, match="unknown command_id"):  # single use
        await victim.ask(write(command, b"late"))


async def test_a_command_that_transfers_nothing_takes_nothing(
    api: Api, attach: Callable[[str], Any]
) -> None:
    puppet = await attach("curious")
    build = await api.submit(["true"], worker="curious")
    command = await puppet.command()
    for message in (
        write(command, b"x"),
        messages.UpdateReadFile(command.command_id, 100),
        messages.UpdateUploadDirectoryUnpack(command.command_id),
    ):
        with pytest.raises(RemoteError, match="no file to transfer"):
            await puppet.ask(message)
    await puppet.end(command)
    assert (await api.ended(build))["state"] == "success"


async def test_ids_of_transfers_cannot_be_guessed(api: Api, attach: Callable[[str], Any]) -> None:
    puppet = await attach("opaque")
    build = await api.submit(UPLOAD, UPLOAD, worker="opaque")
    secrets = []
    for _ in range(2):
        command = await puppet.command()
        assert command.command_id.startswith(f"{build}.1.")
        secrets.append(command.command_id.rpartition(".")[2])
        await puppet.ask(close(command))
        await puppet.end(command)
    assert len(set(secrets)) == 2
    assert all(len(secret) == 32 for secret in secrets)


async def test_what_the_agent_says_does_not_count_without_the_bytes(
    api: Api, attach: Callable[[str], Any]
) -> None:
    """A success with nothing behind it is none (N4)."""
    puppet = await attach("liar")
    download = {"name": "get", "download": {"to": "f", "content": "text"}}
    tree = {"name": "tree", "upload_directory": {"from": "d"}}
    go_on = {"halt_on_failure": False}
    build = await api.submit(
        {**UPLOAD, **go_on}, {**download, **go_on}, {**tree, **go_on}, worker="liar"
    )
    for _ in range(3):
        await puppet.end(await puppet.command())
    view = await api.ended(build)
    assert [step["state"] for step in view["steps"]] == ["failure"] * 3
    assert b"has not read all of it" in await api.log(build, 1)
    assert await listed(api, build) == {}


async def test_N3_a_lost_worker_leaves_no_part_of_a_file(
    shared_hub: HubProcess, api: Api, attach: Callable[[str], Any]
) -> None:
    puppet = await attach("lost")
    build = await api.submit(UPLOAD, worker="lost", retry={"on_loss": 0})
    command = await puppet.command()
    await puppet.ask(write(command, b"half of it"))
    await puppet.connection.close()
    assert (await api.ended(build))["state"] == "exception"
    assert await listed(api, build) == {}
    assert not (shared_hub.state_dir / "artifacts" / build).exists()


async def test_a_second_attempt_has_the_artifacts_of_its_own(
    shared_hub: HubProcess, api: Api, attach: Callable[[str], Any]
) -> None:
    puppet = await attach("twice")
    build = await api.submit(UPLOAD, UPLOAD, worker="twice")
    first = await puppet.command()
    await puppet.ask(write(first, b"first"))
    await puppet.ask(close(first))
    await puppet.end(first)
    await puppet.command()
    await puppet.connection.close()
    await shared_hub.latent(api, "twice")
    again = await attach("twice")
    command = await again.command()
    assert command.command_id.startswith(f"{build}.2.")
    assert await listed(api, build) == {}
    await again.end(command, rc=1)
    view = await api.ended(build)
    assert (view["state"], view["attempts"]) == ("failure", 2)
    assert not (shared_hub.state_dir / "artifacts" / build / "1").exists()


@pytest.mark.timeout(400)
async def test_N3_a_killed_hub_has_the_file_whole_in_the_end(
    make_hub: Callable[[], HubProcess],
) -> None:
    """The agent's half of the transfer is ended, and the file sent again from the beginning."""
    hub = make_hub()
    hub.start()
    script = "seq 30000000 | head -c 150000000 > large; sha256sum large"
    steps: list[Any] = [["sh", "-c", script], {"name": "send", "upload": {"from": "large"}}]
    async with Api(hub.url, hub.token) as api:
        await api.define("crash")
        build = await api.submit(*steps, worker="crash")
        await api.log_reaches(build, 1, step=1)
    hub.kill()
    assert len(list((hub.state_dir / "artifacts" / "staging").iterdir())) <= 1
    hub.start()
    async with Api(hub.url, hub.token) as api:
        view = await api.ended(build, patience_s=180)
        assert (view["state"], view["attempts"]) == ("success", 1), view
        (digest,) = (await listed(api, build)).values()
        assert digest.encode() in await api.log(build, 0)
        data = await api.client.get(f"/api/v1/builds/{build}/artifacts/large")
        assert hashlib.sha256(data.content).hexdigest() == digest
    hub.stop()
    assert list((hub.state_dir / "artifacts" / "staging").iterdir()) == []
    assert hub.leftovers() == []
