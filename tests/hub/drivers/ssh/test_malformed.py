"""Configuration that is broken in some way: whatever its files hold, the driver says in one message
of its own what is wrong, and no exception of a library escapes.

Each row changes one file of a configuration that works. The machine is real; only its Python is
not there, so that a login which succeeds all the same ends soon.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from needs import needs
from peers.sshd import Sshd, make_key

from hostler_hub.drivers.contract import AgentArchive, Environment
from hostler_hub.drivers.errors import ProviderFailed
from hostler_hub.drivers.registry import check_options
from hostler_hub.drivers.ssh.driver import SshDriver
from hostler_hub.runtime.secrets import Secrets

pytestmark = pytest.mark.peer("sshd")

SEED = 20261130
MUTATIONS = 20  # of each file
MESSAGE = (
    r"(?s)^ssh: .*(option|secret file|ssh_config|known_hosts|does not let us in|cannot be reached|"
    r"connection broke|does not answer|login shell)"
)


@dataclass(frozen=True)
class Place:
    """A directory with everything by which the hub reaches a machine, as it should be."""

    root: Path
    sshd: Sshd

    def fill(self, directory: Path) -> None:
        """Write the files anew."""
        shutil.rmtree(directory, ignore_errors=True)
        for each in ("secrets", "drivers"):
            (directory / each).mkdir(parents=True)
        for name in ("key", "key.pub", "key-cert.pub", "locked", "locked.pub"):
            shutil.copy(self.root / name, directory / "drivers" / name)
        shutil.copy(self.root / "key", directory / "secrets" / "key")
        shutil.copy(self.root / "locked", directory / "secrets" / "locked")
        (directory / "secrets" / "phrase").write_text("a phrase")
        where = f"{self.sshd.address}]:{self.sshd.port}"
        known = f"[{where} {self.sshd.public_host_key}\n"
        (directory / "drivers" / "known_hosts").write_text(known)
        (directory / "drivers" / "more").write_text(f"Host *\n  User {self.sshd.user}\n")
        (directory / "drivers" / "config").write_text(
            f"Include {directory}/drivers/more\nHost box\n  HostName {self.sshd.address}\n"
            f"  Port {self.sshd.port}\n  IdentityFile {directory}/drivers/key\n"
            "  UserKnownHostsFile /dev/null\n  GlobalKnownHostsFile /dev/null\n"
            "  IdentitiesOnly yes\n  IdentityAgent none\n"
        )

    def options(self, **changes: Any) -> dict[str, Any]:
        """How the machine is reached by the ssh_config."""
        common = {"ssh_config": True, "python": "/no/python", "connect_timeout_s": 20.0}
        return {"host": "box", **common, **changes}

    def plain(self, **changes: Any) -> dict[str, Any]:
        """How the machine is reached by options alone."""
        given = {"host": self.sshd.address, "port": self.sshd.port, "key": {"file": "key"}}
        return self.options(**given, ssh_config=False, **changes)


@pytest.fixture(scope="module")
@needs("sshd")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("place")
    sshd = Sshd(root / "sshd", "MaxStartups 100")
    shutil.copy(sshd.client_key, root / "key")
    shutil.copy(f"{sshd.client_key}.pub", root / "key.pub")
    locked = [
        "ssh-keygen",
        "-q",
        "-t",
        "ed25519",
        "-a",
        "1",
        "-N",
        "a phrase",
        "-f",
        root / "locked",
    ]
    subprocess.run(locked, check=True)
    make_key(root / "ca")
    signed = ["ssh-keygen", "-q", "-s", root / "ca", "-I", "x", root / "key.pub"]
    subprocess.run(signed, check=True)
    sshd.start()
    yield Place(root, sshd)
    sshd.stop()


def mutations(content: bytes, seed: str) -> Iterator[bytes]:
    """Ways in which a file breaks: cut, doubled, in another encoding, with bits and bytes wrong."""
    chance = random.Random(f"{SEED} {seed}")
    size = len(content)
    yield from (b"", b"\0", b"\n" * 5000, b"\xff\xfe\xfd" * 100, b"x" * 200_000)
    yield content[: size // 2]
    yield content[size // 2 :]
    yield content + content
    yield content.decode("latin-1").encode("utf-16")
    yield b"\xef\xbb\xbf" + content
    yield content.replace(b"\n", b"\r")
    yield content.replace(b" ", b"\0")
    yield content[::-1]
    yield b"caf\xe9 " + content
    while True:
        changed = bytearray(content)
        for _ in range(chance.randint(1, 6)):
            changed[chance.randrange(size)] = chance.randrange(256)
        yield bytes(changed)


FILES = ["secrets/key", "secrets/locked", "secrets/phrase"] + [
    f"drivers/{name}" for name in ("config", "more", "known_hosts", "key", "key-cert.pub")
]


@pytest.fixture
def directory(place: Place, tmp_path: Path) -> Path:
    place.fill(tmp_path / "there")
    return tmp_path / "there"


@pytest.fixture
def hub(environment: Environment, archive: AgentArchive, directory: Path) -> Environment:
    secrets = Secrets(directory / "secrets", {})
    files = directory / "drivers"
    return replace(environment, archive=archive, secrets=secrets, config_directory=files)


async def outcome(hub: Environment, options: dict[str, Any]) -> str:
    """What the driver says when it is asked for what runs on the machine. It always says something,
    since there is no Python. Any other exception than its own fails the test.
    """
    check_options(SshDriver, options)
    driver = SshDriver(hub)
    try:
        with pytest.raises(ProviderFailed, match=MESSAGE) as caught:
            await driver.list_owned([options])
    finally:
        await driver.aclose()
    said = str(caught.value)
    said.encode()
    assert "\0" not in said
    assert "Traceback" not in said
    return said


async def test_what_is_broken_here_works_otherwise(
    hub: Environment, place: Place, directory: Path
) -> None:
    for options in (place.options(), place.plain()):
        assert "no '/no/python' there" in await outcome(hub, options)


@pytest.mark.parametrize("file", FILES)
async def test_no_exception_of_a_library_escapes(
    hub: Environment, place: Place, directory: Path, file: str
) -> None:
    path = directory / file
    content = path.read_bytes()
    locked = {"key": {"file": "locked"}, "passphrase": {"file": "phrase"}}
    options = place.plain() if file.startswith("secrets/") else place.options()
    if file in ("secrets/locked", "secrets/phrase"):
        options.update(locked)
    for changed, _ in zip(mutations(content, file), range(MUTATIONS), strict=False):
        path.write_bytes(changed)
        await outcome(hub, options)
    path.unlink()
    await outcome(hub, options)
    path.mkdir()
    await outcome(hub, options)


GARBLED = "printf 'SSH-2.0-x\\r\\n'; head -c 5000 /dev/urandom"
CONFIGS = {
    "includes itself": "Include {d}/config\n",
    "includes a binary": f"Include {sys.executable}\n",
    "includes a directory": "Include {d}\n",
    "a thousand nested blocks": "Match all\nMatch host box\nMatch user *\n" * 1000,
    "a line of a megabyte": "Host box\n  User " + "x" * 1_000_000 + "\n",
    "an open quote": 'Host box\n  User "x\n',
    "a port of letters": "Host box\n  Port many\n",
    "a port that is none": "Host box\n  Port 70000\n",
    "a user that no server has": "Host box\n  User caf\xe9\n",
    "a key with a bad name": "Host box\n  IdentityFile {d}/caf\xe9\n",
    "a host that is none": "Host box\n  HostName no-such-host.invalid\n",
    "a host with a blank": 'Host box\n  HostName "a b"\n',
    "a host that is too long": "Host box\n  HostName " + "a" * 300 + "\n",
    "a host of dots": "Host box\n  HostName a..b\n",
    "an empty host": 'Host box\n  HostName ""\n',
    "a jump through itself": "Host *\n  ProxyJump box\n",
    "a jump to nothing": "Host box\n  ProxyJump @:\n",
    "a jump with a bad port": "Host box\n  ProxyJump x:0\n",
    "a proxy that prints words": "Host box\n  ProxyCommand echo hello\n",
    "a proxy that is silent": "Host box\n  ConnectTimeout 1\n  ProxyCommand exec sleep 600\n",
    "a proxy that prints noise": "Host box\n  ProxyCommand head -c 100000 /dev/urandom\n",
    "a proxy that is half a server": f'Host box\n  ProxyCommand sh -c "{GARBLED}"\n',
    "a proxy that is not there": "Host box\n  ProxyCommand /no/such/program\n",
    "a proxy that dies": "Host box\n  ProxyCommand sh -c 'kill -9 $$'\n",
    "a condition that fails to run": 'Match exec "/no/such/program"\n  User x\n',
    "a condition that never ends": 'Match exec "sleep 600"\n  User x\n',
    "an agent that is none": "Host box\n  IdentityAgent {d}/config\n  IdentityFile /dev/null\n",
    "a key that never ends": "Host box\n  IdentityFile /dev/zero\n",
    "known hosts that are a directory": "Host box\n  UserKnownHostsFile {d}\n",
    "a token that is none": "Host box\n  IdentityFile {d}/%\n",
    "an algorithm that is none": "Host box\n  KexAlgorithms ,,\n",
    "a number that is none": "Host box\n  ConnectTimeout -3\n",
}


@pytest.mark.parametrize("name", CONFIGS)
async def test_a_config_that_ssh_itself_would_stumble_over(
    hub: Environment, place: Place, directory: Path, name: str
) -> None:
    config = directory / "drivers" / "config"
    text = CONFIGS[name].replace("{d}", str(directory / "drivers"))
    config.write_bytes(text.encode("latin-1") + config.read_bytes())
    patience = 1.0 if name in ("a proxy that is silent", "a condition that never ends") else 20.0
    await outcome(hub, place.options(connect_timeout_s=patience))


async def test_one_machine_s_configuration_is_not_another_s(
    hub: Environment, place: Place, directory: Path
) -> None:
    """The way to one machine is broken; a definition that does not use it works."""
    (directory / "drivers" / "config").write_text("Include\nNonsense\n\0")
    with (directory / "drivers" / "known_hosts").open("ab") as known:
        known.write(b"\xff\xfe broken\n@cert-authority * ssh-ed25519 A\n")
    assert "bad configuration option" in await outcome(hub, place.options())
    assert "no '/no/python' there" in await outcome(hub, place.plain())


def test_there_are_two_hundred() -> None:
    assert len(FILES) * (MUTATIONS + 2) + len(CONFIGS) >= 200
