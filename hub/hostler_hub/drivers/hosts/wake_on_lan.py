"""Wakes machines that sleep: by a magic packet, and by programs (hooks) of the hub's administrator.

A person who may define workers can name a hook, and can pass it nothing but the worker's host and
mac. Which hooks exist, and what they do, is decided by those who may write to the hub's machine.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hostler_hub.drivers.errors import OptionsRefused, ProviderFailed

HOOK_DEADLINE_S = 60.0
_SAID_BYTES = 400


class WakeOptions(BaseModel):
    """How to wake a machine that sleeps: by a magic packet to `mac`, and by `hook`, the name of a
    program that the hub's administrator put into this driver's directory `hooks`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    mac: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}$")] | None = None
    broadcast: Annotated[str, Field(pattern=r"^[0-9A-Za-z.:-]{1,253}$")] = "255.255.255.255"
    port: Annotated[int, Field(ge=1, le=65535)] = 9
    hook: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")] | None = None
    timeout_s: Annotated[float, Field(gt=0, le=270)] = 120.0

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.mac is None and self.hook is None:
            raise ValueError("either mac or hook says how to wake it")
        return self


async def call(how: WakeOptions, hooks: Path | None, host: str) -> None:
    """Send the packet and run the hook that `how` names, once. Raises DriverError."""
    if how.mac is not None:
        try:
            await asyncio.to_thread(send_packet, how.mac, how.broadcast, how.port)
        except OSError as error:
            text = f"option 'wake.broadcast': no packet to {how.broadcast}: {error.strerror}"
            raise ProviderFailed(text) from error
    if how.hook is not None:
        await run_hook(hooks, how.hook, [host, how.mac or ""])


def magic_packet(mac: str) -> bytes:
    """The content of a wake-on-LAN packet: six bytes of 255, then the MAC address sixteen times."""
    return b"\xff" * 6 + bytes.fromhex(mac.replace(":", "").replace("-", "")) * 16


def send_packet(mac: str, broadcast: str, port: int) -> None:
    """Broadcast a magic packet. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        broadcast, port, type=socket.SOCK_DGRAM
    )[0]
    with socket.socket(family, kind, protocol) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.sendto(magic_packet(mac), address)


async def run_hook(directory: Path | None, name: str, arguments: list[str]) -> None:
    """Run a hook. Raises OptionsRefused if it may not be run, ProviderFailed if it fails."""
    program = _checked(directory, name)
    process = await asyncio.create_subprocess_exec(
        str(program),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(HOOK_DEADLINE_S):
            said, _ = await process.communicate()
    except TimeoutError:
        raise ProviderFailed(f"hook {name} took longer than {HOOK_DEADLINE_S:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        words = said.decode("utf-8", "replace").strip()[-_SAID_BYTES:]
        raise ProviderFailed(f"hook {name} failed with {process.returncode}: {words}")


def _checked(directory: Path | None, name: str) -> Path:
    if directory is None:
        raise OptionsRefused(f"option 'wake.hook': this hub has no directory for hook {name}")
    program = directory / name
    try:
        found = program.lstat()
    except OSError as error:
        raise OptionsRefused(f"option 'wake.hook': {program}: {error.strerror}") from None
    is_ours = found.st_uid in (0, os.geteuid())
    writable = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISREG(found.st_mode) or not is_ours or writable or not found.st_mode & 0o100:
        raise OptionsRefused(
            f"option 'wake.hook': {program} must be an executable file of the hub's user or root "
            "that nobody else may write"
        )
    return program
