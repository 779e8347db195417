"""A real sshd, and transports to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from needs import needs
from peers.sshd import Sshd

from hostler_hub.drivers.transports.ssh.access import SshAccess
from hostler_hub.drivers.transports.ssh.known_hosts import KnownHosts
from hostler_hub.drivers.transports.ssh.login import LoginMaterial
from hostler_hub.drivers.transports.ssh.transport import SshTransport
from hostler_hub.runtime.secrets import Secrets

MakeSshd = Callable[..., Sshd]
MakeTransport = Callable[..., SshTransport]


@pytest.fixture
@needs("sshd")
def make_sshd(tmp_path: Path) -> Iterator[MakeSshd]:
    """Starts a server with more lines of configuration."""
    made: list[Sshd] = []

    def make(*lines: str) -> Sshd:
        made.append(Sshd(tmp_path / f"sshd-{len(made)}", *lines))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def material(tmp_path: Path) -> LoginMaterial:
    (tmp_path / "secrets").mkdir()
    known = KnownHosts(tmp_path / "drivers" / "known_hosts")
    return LoginMaterial(known, tmp_path / "drivers" / "config", Secrets(tmp_path / "secrets", {}))


@pytest.fixture
async def make_transport(material: LoginMaterial, tmp_path: Path) -> AsyncIterator[MakeTransport]:
    """A transport to a server; what is given changes how it is reached."""
    threads, made = ThreadPoolExecutor(8), []

    def make(sshd: Sshd, *, jump: tuple[Sshd, ...] = (), **changes: Any) -> SshTransport:
        access = SshAccess.model_validate(
            {
                "target": {**hop(sshd, tmp_path), **changes},
                "jump": tuple(hop(each, tmp_path) for each in jump),
                "connect_timeout_s": 60.0,
            }
        )
        made.append(SshTransport(access, material, threads))
        return made[-1]

    yield make
    for each in made:
        await each.aclose()
    threads.shutdown(cancel_futures=True)


def hop(sshd: Sshd, tmp_path: Path) -> dict[str, Any]:
    """How the server is reached, its key known."""
    (tmp_path / "secrets" / sshd.directory.name).write_text(sshd.client_key.read_text())
    return {
        "host": sshd.address,
        "port": sshd.port,
        "user": sshd.user,
        "key": {"file": sshd.directory.name},
        "host_key": sshd.public_host_key,
    }
