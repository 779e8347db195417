"""What clients begin and do not finish, and what they send too much of, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from hub.web.listener_server import PIECE_BYTES, Server, serving, until

from hostler_hub.web.listener import http

HOST = b"Host: hub\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"


@pytest.fixture
async def hasty() -> AsyncIterator[Server]:
    """One whose deadlines pass at once."""
    async with serving(0.05) as server:
        yield server


@pytest.fixture
async def patient() -> AsyncIterator[Server]:
    """One whose deadlines pass when the test says so."""
    async with serving(3600.0) as server:
        yield server


# --- deadlines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nHos", b"HTTP/1.1 408 "),
        (b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf", b"HTTP/1.1 408 "),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf", b"HTTP/1.1 408 "),
        (b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", b"HTTP/1.1 408 "),
    ],
    ids=["silence", "head", "body", "chunk", "handshake"],
)
async def test_what_is_begun_is_finished_in_time_or_closed(
    hasty: Server, sent: bytes, answer: bytes
) -> None:
    client = await hasty.dial(sent)
    read = await client.rest()
    assert read[: len(answer)] == answer
    assert bool(read) == bool(answer)
    await until(lambda: hasty.connections.open_count == 0)


async def test_a_second_request_has_a_deadline_too(hasty: Server) -> None:
    client = await hasty.dial(GET + b"GET / HTT")
    read = await client.rest()
    assert read.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in read


async def test_an_answer_may_take_as_long_as_it_takes(hasty: Server) -> None:
    hasty.reads.clear()
    client = await hasty.dial(GET)
    await until(lambda: bool(hasty.protocols))
    await until(lambda: hasty.protocols[0]._timer is None)
    await asyncio.sleep(3 * hasty._parts.deadline_s)
    hasty.reads.set()
    await client.until(b"ok")


async def test_a_trickling_body_is_cut_unless_it_brings_enough_from_a_known_client(
    patient: Server,
) -> None:
    half = b" HTTP/1.1\r\nContent-Length: 100000\r\n\r\n"
    enough = b"x" * http.BODY_LEAST_BYTES
    stranger = await patient.dial(b"POST /unknown" + half + enough)
    known = await patient.dial(b"POST /known" + half + enough)
    trickle = await patient.dial(b"POST /known" + half)
    await until(lambda: len(patient.protocols) == 3)
    for protocol, least in zip(patient.protocols, (1, 1, 0), strict=True):
        await until(lambda p=protocol, n=least: p._body_bytes >= n and p.cycle is not None)
        protocol._end_window()
    assert b" 408 " in await stranger.rest()
    assert b" 408 " in await trickle.rest()
    known.writer.write(b"x" * (100000 - len(enough)))
    await known.until(b"ok")
    assert patient.bodies[-1] == 100000


async def test_no_deadline_counts_while_the_application_does_not_read(patient: Server) -> None:
    patient.reads.clear()
    size = 4 * http.HEAD_SIZE_BYTES
    client = await patient.dial(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size)
    client.writer.write(b"x" * (size - 1))
    await until(lambda: bool(patient.protocols) and patient.protocols[0].flow.read_paused)
    for _ in range(3):
        patient.protocols[0]._end_window()
    patient.reads.set()
    client.writer.write(b"x")
    await client.until(b"ok")
    assert patient.bodies == [size]


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "begin",
    [
        b"GET / HTTP/1.1\r\nX: ",
        b"GET /",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: ",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;extension=",
    ],
    ids=["header", "url", "trailer", "extension"],
)
async def test_V15_an_endless_line_is_cut(patient: Server, begin: bytes) -> None:
    client = await patient.dial(begin)
    sent = 0
    with suppress(ConnectionError):
        while sent < 64 * 2**20:
            client.writer.write(b"x" * 65536)
            await client.writer.drain()
            sent += 65536
    await client.rest()
    assert sent < 64 * 2**20


@pytest.mark.parametrize("begin", [b"", b"0\r\n"], ids=["headers", "trailers"])
async def test_V15_endless_headers_are_cut(patient: Server, begin: bytes) -> None:
    chunked = b"Transfer-Encoding: chunked\r\n\r\n" if begin else b""
    client = await patient.dial(b"POST / HTTP/1.1\r\n" + chunked + begin)
    with suppress(ConnectionError):
        for _ in range(16):
            client.writer.write(b"X: y\r\n" * 100_000)
            await client.writer.drain()
    await client.rest()
    await until(lambda: patient.connections.open_count == 0)


async def test_requests_that_are_sent_before_answers_are_few(patient: Server) -> None:
    patient.reads.clear()
    few = await patient.dial(GET * http.PIPELINED)
    await until(lambda: bool(patient.protocols) and bool(patient.protocols[0].pipeline))
    many = await patient.dial(GET * 10_000)
    assert await many.rest() == b""
    patient.reads.set()
    for _ in range(http.PIPELINED):
        await few.until(b"ok")


HANDSHAKE = (
    b"GET /agents HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@pytest.mark.parametrize(
    ("more", "status"),
    [
        (b"X: " + b"x" * 4000, 101),
        (b"X: " + b"x" * 20_000, 431),
        (b"X: " + b"x" * 9_000, 431),
        (b"X: y\r\n" * 150 + b"X: y", 431),
        (b"\r\n".join([b"X: " + b"x" * 4000] * 5), 431),
    ],
    ids=["fits", "20 kB", "line", "lines", "all"],
)
async def test_a_handshake_that_is_too_large_is_told_so(
    patient: Server, more: bytes, status: int
) -> None:
    client = await patient.dial(HANDSHAKE + more + b"\r\n\r\n")
    await client.until(b"HTTP/1.1 %d " % status)
    if status != 101:
        assert b"431 Request Header Fields Too Large" in await client.rest()


async def test_a_handshake_that_is_none_is_closed(patient: Server) -> None:
    client = await patient.dial(HANDSHAKE.replace(b"GET", b"PUT") + b"\r\n")
    await client.rest()
    await until(lambda: patient.connections.open_count == 0)


async def test_V15_who_reads_no_answer_makes_the_hub_keep_little_of_it(patient: Server) -> None:
    client = await patient.dial(b"GET /endless HTTP/1.1\r\nHost: hub\r\n\r\n")
    client.writer.transport.pause_reading()
    await until(lambda: patient.pieces > 0)
    protocol = patient.protocols[0]
    await until(lambda: protocol.flow.write_paused)
    sent = patient.pieces
    for _ in range(100):
        await asyncio.sleep(0)
    assert patient.pieces <= sent + 1
    assert protocol.transport.get_write_buffer_size() < 4 * PIECE_BYTES
