"""Connecting, authenticating, coming back, and staying away when told to."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Callable

import pytest
from websockets.asyncio.server import unix_serve

from hostler_agent.errors import ConfigurationError, DeadlineExceeded, LinkLost, OrderedAway
from hostler_agent.hub.connection import Connection
from hostler_agent.hub.link import Endpoint, Link
from hostler_agent.wire import messages
from hostler_agent.wire.errors import RemoteError
from hostler_agent.wire.extension import Handshake
from hostler_agent.wire.messages import (
    Keepalive,
    Print,
    Update,
    UpdateReadFile,
    UpdateUploadFileWrite,
)

HANDSHAKE = Handshake("w1", "token", "s" * 43, "01JABCDEFGHJKMNPQRSTVWXYZ0", 7)


class Client:
    """A link whose connections answer every request with null, and its contacts."""

    def __init__(
        self, clock: Any, url: str, handshake: Handshake = HANDSHAKE, **endpoint: Any
    ) -> None:
        self.contacts: list[float] = []
        self.was_contacted = asyncio.Event()
        self.requests: list[messages.Message] = []
        self.connections: asyncio.Queue[Connection] = asyncio.Queue()
        self.link = Link(Endpoint(url, **endpoint), handshake, clock, lambda: 1.0, self.contacted)
        self.task = asyncio.create_task(self.link.run(self.serve), name="link under test")

    def contacted(self, sent_at: float) -> None:
        self.contacts.append(sent_at)
        self.was_contacted.set()

    async def serve(self, connection: Connection) -> None:
        self.connections.put_nowait(connection)
        await connection.serve(self.handle)

    async def handle(self, message: messages.Message) -> None:
        self.requests.append(message)
        if message == Print("no such thing"):
            raise LookupError(message.message)

    async def connected(self) -> Connection:
        return await asyncio.wait_for(self.connections.get(), 60)

    async def outcome(self) -> None:
        await asyncio.wait_for(self.task, 60)


@pytest.fixture
async def connect(clock) -> AsyncIterator[Callable[..., Client]]:
    clients: list[Client] = []

    def start(url: str, **options: Any) -> Client:
        clients.append(Client(clock, url, **options))
        return clients[-1]

    yield start
    for client in clients:
        client.task.cancel()
    await asyncio.gather(*(client.task for client in clients), return_exceptions=True)


@pytest.fixture
def bare(hub):
    """A hub that says nothing of its own accord."""
    hub.sends_settings = False
    return hub


async def test_the_handshake_tells_who_we_are(bare, connect) -> None:
    connect(bare.url)
    connection = await bare.attached()
    assert bare.handshakes == [HANDSHAKE]
    assert connection.socket.protocol.extensions == []  # no compression


async def test_a_unix_socket_leads_to_the_hub(bare, connect, tmp_path: Path) -> None:
    path = tmp_path / "hub.sock"
    async with unix_serve(bare._serve, path, process_request=bare._decide, compression=None):
        client = connect("ws://nobody.invalid/api/v1/agents/connect", unix_socket=path)
        await client.connected()
        assert bare.handshakes == [HANDSHAKE]


async def test_small_frames_are_sent_at_once(bare, connect) -> None:
    client = connect(bare.url)
    connection = await client.connected()
    sock = connection._socket.transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_requests_go_both_ways(bare, connect) -> None:
    client = connect(bare.url)
    ours, theirs = await client.connected(), await bare.attached()
    bare.answer = lambda message: b"data" if isinstance(message, UpdateReadFile) else None
    assert await theirs.request(Keepalive()) is None
    assert client.requests == [Keepalive()]
    assert await ours.request(UpdateReadFile("c1", 4)) == b"data"


async def test_a_handlers_exception_is_the_hubs_error(bare, connect) -> None:
    connect(bare.url)
    with pytest.raises(RemoteError, match=r"^no such thing$"):
        await (await bare.attached()).request(Print("no such thing"))


async def test_the_hubs_refusal_is_an_error_here(bare, connect) -> None:
    client = connect(bare.url)

    def refuse(message: messages.Message) -> None:
        raise KeyError("unknown command_id")

    bare.answer = refuse
    with pytest.raises(RemoteError, match="unknown command_id"):
        await (await client.connected()).request(Update("c1", []))


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_a_refusal_is_tried_again_later(bare, connect, clock, status: int) -> None:
    bare.refusals = [(status, {}), (status, {})]
    connect(bare.url)
    await clock.waiting(1.0)
    await clock.advance(1.0)
    await clock.waiting(2.0)
    await clock.advance(2.0)
    await bare.attached()
    assert len(bare.handshakes) == 3


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_honoured(bare, connect, clock, status: int) -> None:
    """A12: a hub that is flooded says how long; so does one where this address has guessed."""
    bare.refusals = [(status, {"Retry-After": "30"})]
    connect(bare.url)
    await clock.waiting(31.0)


async def test_a_hub_that_is_not_there_is_tried_again(connect, clock) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        connect(f"ws://127.0.0.1:{taken.getsockname()[1]}/")
        await clock.waiting(1.0)
        await clock.advance(1.0)
        await clock.waiting(2.0)


async def test_410_is_an_order_to_go_away_for_good(bare, connect) -> None:
    """A2, A3: a stale instance never comes back."""
    bare.refusals = [(410, {"Retry-After": "1"})]
    client = connect(bare.url)
    with pytest.raises(OrderedAway):
        await client.outcome()
    assert len(bare.handshakes) == 1


async def test_410_sends_no_permanent_agent_away(bare, connect, clock) -> None:
    """Its hub never says so: a proxy in front of it has lost the hub for a while."""
    bare.refusals = [(410, {}), (410, {})]
    connect(bare.url, handshake=Handshake("w1", "password", "s" * 43))
    await clock.waiting(1.0)
    await clock.advance(1.0)
    await clock.waiting(2.0)
    await clock.advance(2.0)
    await bare.attached()


async def test_close_code_4410_is_an_order_to_go_away_for_good(bare, connect) -> None:
    client = connect(bare.url)
    await (await bare.attached()).socket.close(4410, "epoch 7 is over")
    with pytest.raises(OrderedAway, match="epoch 7 is over"):
        await client.outcome()
    assert len(bare.handshakes) == 1


async def test_any_other_close_is_followed_by_another_connection(bare, connect, clock) -> None:
    client = connect(bare.url)
    await (await bare.attached()).socket.close(1012, "restarting")
    await clock.waiting(1.0)
    await clock.advance(1.0)
    await bare.attached()
    assert bare.handshakes == [HANDSHAKE, HANDSHAKE]
    assert not client.task.done()


async def test_a_redirect_is_not_followed(bare, connect, clock) -> None:
    """It would take our credentials elsewhere."""
    bare.refusals = [(307, {"Location": bare.url})]
    connect(bare.url)
    await clock.waiting(1.0)
    assert len(bare.handshakes) == 1


async def test_a_short_connection_does_not_reset_the_backoff(bare, connect, clock) -> None:
    connect(bare.url)
    for delay in (1.0, 2.0, 4.0):
        (await bare.attached()).cut()
        await clock.waiting(delay)
        await clock.advance(delay)
    connection = await bare.attached()
    await clock.waiting(20.0)
    clock.jump(15)
    connection.cut()
    await clock.waiting(1.0)


async def test_a_cut_connection_fails_the_requests_under_way(bare, connect) -> None:
    client = connect(bare.url)
    ours, theirs = await client.connected(), await bare.attached()
    bare.holds_answers = True
    answer = await ours.post(UpdateReadFile("c1", 4))
    await bare.until(lambda _: theirs.held)
    theirs.cut()
    with pytest.raises(LinkLost):
        await asyncio.wait_for(answer, 60)
    with pytest.raises(LinkLost):
        await ours.request(UpdateReadFile("c1", 4))


async def test_a_request_has_a_deadline(bare, connect, clock) -> None:
    """N1"""
    client = connect(bare.url)
    ours, theirs = await client.connected(), await bare.attached()
    bare.holds_answers = True
    answer = await ours.post(UpdateReadFile("c1", 4), deadline_s=10)
    await bare.until(lambda _: theirs.held)
    await clock.advance(9.9)
    assert not answer.done()
    await clock.advance(0.2)
    with pytest.raises(DeadlineExceeded):
        await answer
    bare.holds_answers = False
    await theirs.release()  # the late answer harms nobody
    assert await ours.request(UpdateReadFile("c1", 4)) is None


async def test_a_hub_that_reads_no_more_cannot_keep_us(bare, connect) -> None:
    """N1, V18: a slow reader; what it does not take is given up with the connection."""
    client = connect(bare.url)
    ours, theirs = await client.connected(), await bare.attached()
    theirs.socket.transport.pause_reading()
    small = (socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ours._socket.transport.get_extra_info("socket").setsockopt(*small)
    chunk = b"x" * (2**20 - 1000)
    posted = [await ours.post(UpdateUploadFileWrite("c1", chunk)) for _ in range(40)]
    await asyncio.wait_for(ours.close(deadline_s=0.01), 60)
    for answer in posted:
        with pytest.raises(LinkLost):
            await asyncio.wait_for(answer, 60)
    theirs.cut()  # or its server would wait for our goodbye, which it does not read


async def test_the_slots_are_bounded(bare, connect) -> None:
    """U4: 64 in flight; the 65th waits for an answer."""
    client = connect(bare.url)
    ours, theirs = await client.connected(), await bare.attached()
    bare.holds_answers = True
    posted = [await ours.post(UpdateReadFile("c1", 4)) for _ in range(64)]
    await bare.until(lambda _: len(theirs.held) == 64)
    late = asyncio.create_task(ours.post(UpdateReadFile("c1", 4)))
    await asyncio.sleep(0)
    assert not late.done()
    await theirs.release()
    await asyncio.wait_for(late, 60)
    await asyncio.gather(*posted)


async def test_answers_tell_how_far_the_hub_has_heard(bare, connect, clock) -> None:
    """A7: the lease counts from when the answered message was sent."""
    client = connect(bare.url)
    ours, theirs = await client.connected(), await bare.attached()
    handshake_at = clock.now()
    bare.holds_answers = True
    answer = await ours.post(UpdateReadFile("c1", 4))
    await bare.until(lambda _: theirs.held)
    clock.jump(5)
    await theirs.release()
    await answer
    assert client.contacts == [handshake_at, handshake_at]


async def test_an_answered_ping_is_a_contact(bare, connect, clock) -> None:
    client = connect(bare.url)
    await client.connected()
    start = clock.now()
    client.was_contacted.clear()
    await clock.waiting(20.0)
    await clock.advance(20)
    await asyncio.wait_for(client.was_contacted.wait(), 60)
    assert client.contacts == [start, start + 20]


async def test_a_hub_that_answers_no_ping_is_given_up(connect, clock) -> None:
    """N1: half open, found within 40 s."""
    handshakes = 0

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal handshakes
        handshakes += 1
        request = await reader.readuntil(b"\r\n\r\n")
        writer.write(accept(request))
        await reader.read()  # takes everything, answers nothing
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    client = connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    await client.connected()
    await clock.waiting(20.0)
    await clock.advance(20)
    await clock.waiting(20.0)
    await clock.advance(20)
    await clock.waiting(1.0)  # it lasted: the first delay is short
    assert handshakes == 1
    server.close()
    await server.wait_closed()


def accept(request: bytes) -> bytes:
    from websockets.utils import accept_key

    headers = dict(line.split(": ", 1) for line in request.decode().split("\r\n")[1:] if line)
    key = accept_key(headers["Sec-WebSocket-Key"])
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {key}\r\n\r\n"
    ).encode()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\xc1", 1002),
        (b"\x80", 1002),
        ("text", 1003),
        (b"\x81\xa1a" + b"\x91" * 40 + b"\xc0", 1009),
        (b"x" * (8 * 2**20 + 1), 1009),
    ],
    ids=["no MessagePack", "no seq_number", "text", "too deep", "too big"],
)
async def test_what_is_no_message_closes_the_connection(bare, connect, frame, code) -> None:
    connect(bare.url)
    theirs = await bare.attached()
    await theirs.socket.send(frame)
    await asyncio.wait_for(theirs.socket.wait_closed(), 60)
    assert theirs.socket.close_code == code


async def test_an_unknown_operation_is_answered_and_nothing_else_happens(bare, connect) -> None:
    connect(bare.url)
    theirs = await bare.attached()

    class Reboot(messages.Message):
        op = "reboot"

    with pytest.raises(RemoteError, match="'reboot' does not exist"):
        await theirs.request(Reboot())
    await theirs.request(Keepalive())


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "tls.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            path,
            "-out",
            tmp_path / "cert.pem",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + (tmp_path / "cert.pem").read_text())
    return path


@pytest.fixture
async def tls_hub(start_hub, certificate: Path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    hub = await start_hub(None, ssl=context)
    hub.sends_settings = False
    return hub


async def test_tls_with_our_own_authority(tls_hub, tmp_path: Path, connect) -> None:
    """C02"""
    connect(tls_hub.url, ca_file=tmp_path / "cert.pem")
    connection = await tls_hub.attached()
    assert connection.socket.transport.get_extra_info("ssl_object").version() == "TLSv1.3"


async def test_an_authority_we_do_not_trust_gets_no_credentials(tls_hub, connect, clock) -> None:
    connect(tls_hub.url)
    await clock.waiting(1.0)
    assert tls_hub.handshakes == []


async def test_a_bad_authority_file_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigurationError, match="option 'ca_file'"):
        Endpoint("wss://hub/", tmp_path / "ca.pem").tls()
