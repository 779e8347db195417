"""What the hub tells systemd."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostler_hub.runtime import systemd


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.settimeout(60)
        yield bound


def test_a_state_arrives_where_systemd_listens(listener: socket.socket) -> None:
    systemd.notify("READY=1", {"NOTIFY_SOCKET": listener.getsockname()})
    assert listener.recv(100) == b"READY=1"


def test_also_at_a_socket_without_a_file() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        name = f"hostler-test-{os.getpid()}"
        bound.bind(f"\0{name}")
        bound.settimeout(60)
        systemd.notify("STOPPING=1", {"NOTIFY_SOCKET": f"@{name}"})
        assert bound.recv(100) == b"STOPPING=1"


def test_nobody_listens() -> None:
    systemd.notify("READY=1", {})


async def test_the_watchdog_hears_as_often_as_it_asks(listener: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": listener.getsockname(), "WATCHDOG_USEC": "2000"}
    alive = asyncio.create_task(systemd.keep_alive(environ))
    for _ in range(3):
        assert await asyncio.to_thread(listener.recv, 100) == b"WATCHDOG=1"
    alive.cancel()


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "2000", "WATCHDOG_PID": "1"}])
async def test_without_a_watchdog_of_ours_nothing_is_said(environ: dict[str, str]) -> None:
    await asyncio.wait_for(systemd.keep_alive(environ), 60)
