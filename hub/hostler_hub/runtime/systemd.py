"""Notifications to systemd, if it started the hub: ready, alive, stopping (sd_notify(3))."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping

# systemd's own advice: twice as often as it expects.
_SHARE = 0.5


def notify(state: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send a state such as `READY=1`. Does nothing if systemd did not start the hub."""
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # a socket without a file
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as listener:
        listener.connect(address)
        listener.sendall(state.encode())


async def keep_alive(environ: Mapping[str, str] = os.environ) -> None:
    """Send the watchdog's keep-alive from the event loop, as often as the unit's WatchdogSec
    demands.
    """
    text = environ.get("WATCHDOG_USEC", "")
    if not text.isdecimal() or environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        notify("WATCHDOG=1", environ)
        await asyncio.sleep(int(text) / 1_000_000 * _SHARE)
