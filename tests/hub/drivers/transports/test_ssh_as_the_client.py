"""The SSH transport beside OpenSSH's client: with the same files, both reach a machine or neither
does; or the transport names what it does not take.

What is expected is not written here: each row is tried with `ssh` itself.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from needs import needs
from peers.sshd import Sshd, make_key

from hostler_hub.drivers.transports.contract import Command
from hostler_hub.drivers.transports.errors import TransportError
from hostler_hub.drivers.transports.ssh.access import SshAccess
from hostler_hub.drivers.transports.ssh.known_hosts import KnownHosts
from hostler_hub.drivers.transports.ssh.login import LoginMaterial
from hostler_hub.drivers.transports.ssh.transport import SshTransport
from hostler_hub.runtime.secrets import Secrets

pytestmark = pytest.mark.peer("sshd")

# Copies its standard input to a port, and what comes back to its standard output.
RELAY = """\
import os, socket, sys, threading
far = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def back():
    while data := far.recv(65536):
        os.write(1, data)
    os._exit(0)
threading.Thread(target=back).start()
while data := os.read(0, 65536):
    far.sendall(data)
"""


def shell(*words: object) -> str:
    return subprocess.run(
        list(map(str, words)), check=True, capture_output=True, text=True
    ).stdout.strip()


def public(path: Path) -> str:
    return " ".join(Path(f"{path}.pub").read_text().split()[:2])


class Lab:
    """Servers, keys, an agent and certificates that all rows share.

    `box` has three host keys, one with a certificate; `other` offers only the second type of its
    keys. Both let in whoever has `key`, `rsa`, `ec` or a certificate of `user_ca`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("key", "stranger", "certified", "user_ca", "host_ca", "with_agent"):
            make_key(directory / name)
        for name, kind in (
            ("rsa", "rsa"),
            ("host_rsa", "rsa"),
            ("ec", "ecdsa"),
            ("host_ec", "ecdsa"),
        ):
            shell("ssh-keygen", "-q", "-t", kind, "-C", "test", "-N", "", "-f", directory / name)
        make_key(directory / "locked", "a phrase")
        for name in ("PEM", "PKCS8"):
            shutil.copy(directory / "rsa", directory / name)
            shell("ssh-keygen", "-q", "-p", "-P", "", "-N", "", "-m", name, "-f", directory / name)
        sign = ["ssh-keygen", "-q", "-I", "test"]
        user = shell("id", "-un")
        shell(*sign, "-s", directory / "user_ca", "-n", user, directory / "certified.pub")
        (directory / "certified-cert.pub").rename(directory / "certificate.pub")
        self.box = self._sshd(
            "box",
            f"HostKey {directory / 'host_ec'}",
            f"HostKey {directory / 'host_rsa'}",
            f"HostCertificate {directory / 'box' / 'host-cert.pub'}",
        )
        self.other = self._sshd(
            "other", f"HostKey {directory / 'host_ec'}", "HostKeyAlgorithms ecdsa-sha2-nistp256"
        )
        self.user = self.box.user
        (directory / "relay.py").write_text(RELAY)
        self._agent = subprocess.Popen(
            ["ssh-agent", "-D", "-a", directory / "agent"], stdout=subprocess.PIPE
        )
        assert self._agent.stdout is not None
        self._agent.stdout.readline()  # it listens
        agent = {**os.environ, "SSH_AUTH_SOCK": str(directory / "agent")}
        add = ["ssh-add", "-q", directory / "with_agent"]
        subprocess.run(add, env=agent, check=True, stderr=subprocess.DEVNULL)
        (directory / "with_agent").unlink()

    def close(self) -> None:
        self.box.stop()
        self.other.stop()
        self._agent.terminate()
        self._agent.communicate()

    def _sshd(self, name: str, *lines: str) -> Sshd:
        trusted = f"TrustedUserCAKeys {self.directory / 'user_ca.pub'}"
        made = Sshd(self.directory / name, trusted, *lines)
        names = ("key", "rsa", "ec", "locked", "with_agent")
        keys = [public(self.directory / each) for each in names]
        (made.directory / "authorized_keys").write_text("\n".join(keys) + "\n")
        sign = ["ssh-keygen", "-q", "-I", "test", "-s", self.directory / "host_ca", "-h"]
        shell(*sign, made.host_key.with_suffix(".pub"))
        made.start()
        return made

    @functools.cached_property
    def words(self) -> dict[str, object]:
        """What rows may name in braces."""
        d, box, other = self.directory, self.box, self.other
        hashed = d / "hashed"
        hashed.write_text(f"[127.0.0.1]:{box.port} {box.public_host_key}\n")
        shell("ssh-keygen", "-H", "-f", hashed)
        return {
            "d": d,
            "user": self.user,
            "python": sys.executable,
            "box_port": box.port,
            "other_port": other.port,
            "box": f"[127.0.0.1]:{box.port}",
            "other": f"[127.0.0.1]:{other.port}",
            "box_key": box.public_host_key,
            "other_key": other.public_host_key,
            "ec_key": public(d / "host_ec"),
            "rsa_key": public(d / "host_rsa"),
            "wrong_key": public(d / "stranger"),
            "wrong_ec": public(d / "ec"),
            "host_ca": public(d / "host_ca"),
            "user_ca": public(d / "user_ca"),
            "hashed": hashed.read_text().strip(),
            "jump": f"HostName 127.0.0.1\n  Port {other.port}",
            "relay": f"{sys.executable} {d / 'relay.py'}",
        }


@pytest.fixture(scope="module")
@needs("sshd")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("lab"))
    yield made
    made.close()


KNOWN = "{box} {box_key}\n{other} {ec_key}\n"


@dataclass(frozen=True)
class Row:
    """A configuration. `config` precedes what all have in common, unless `whole`; words in braces
    are the lab's. `named` is what the transport says if it does not take what `ssh` takes. In one
    that is `endless` the client starts one of itself within the other until somebody stops them.
    """

    name: str
    config: str = ""
    known: str = KNOWN
    files: Mapping[str, str] = field(default_factory=dict)
    host: str = "box"
    user: str | None = None
    port: int | str | None = None
    named: str = ""
    whole: bool = False
    endless: bool = False


COMMON = """
Host box
  HostName 127.0.0.1
  Port {box_port}
Host other
  HostName 127.0.0.1
  Port {other_port}
Host *
  UserKnownHostsFile {d}/row/known_hosts
  GlobalKnownHostsFile /dev/null
  User {user}
  IdentityFile {d}/key
  IdentitiesOnly yes
"""
JUMP = "Host jump\n  {jump}\n"

ROWS = [
    Row("nothing beyond the common"),
    Row("a host that the file does not name", host="127.0.0.1", port="box_port"),
    # --- jump hosts
    Row("one jump", JUMP + "Host box\n  ProxyJump jump\n"),
    Row("jump with user and port", "Host box\n  ProxyJump {user}@127.0.0.1:{other_port}\n"),
    Row("jump as a URL", "Host box\n  ProxyJump ssh://{user}@127.0.0.1:{other_port}\n"),
    Row(
        "ProxyJump none before a rule", "Host box\n  ProxyJump none\nHost *\n  ProxyJump nowhere\n"
    ),
    Row(
        "the jump host excepted from the rule",
        "Host jump\n  ProxyJump none\n" + JUMP + "Host *\n  ProxyJump jump\n",
    ),
    Row("the jump host not excepted", JUMP + "Host *\n  ProxyJump jump\n", endless=True),
    Row(
        "negated pattern instead of none",
        JUMP + "Host * !jump\n  ProxyJump jump\n",
    ),
    Row("chain in one line", JUMP + "Host box\n  ProxyJump jump,other\n"),
    Row(
        "chain of hosts",
        JUMP + "Host second\n  {jump}\n  ProxyJump jump\nHost box\n  ProxyJump second\n",
    ),
    Row(
        "circle",
        "Host a b\n  {jump}\nHost a\n  ProxyJump b\nHost b\n  ProxyJump a\n"
        "Host box\n  ProxyJump a\n",
        endless=True,
    ),
    Row(
        "a jump host whose key is unknown",
        JUMP + "Host box\n  ProxyJump jump\n",
        known="{box} {box_key}\n",
    ),
    Row("a jump host that does not answer", "Host box\n  ProxyJump 127.0.0.1:1\n"),
    # --- proxy commands
    Row("ProxyCommand", "Host box\n  ProxyCommand {relay} %h %p\n"),
    Row(
        "ProxyCommand in the shell's words",
        "Host box\n  ProxyCommand true 2>/dev/null && {relay} %h %p 2>/dev/null\n",
    ),
    Row("ProxyCommand none", "Host box\n  ProxyCommand none\nHost *\n  ProxyCommand false\n"),
    Row("ProxyCommand that fails", "Host box\n  ProxyCommand echo no >&2; exit 1\n"),
    Row(
        "ProxyCommand by ssh -W", "Host box\n  ProxyCommand ssh -F {d}/row/config -W %h:%p other\n"
    ),
    # --- Include and Match
    Row(
        "Include",
        "Include {d}/row/more-*\n",
        files={"more-1": "Host alias\n  HostName 127.0.0.1\n  Port {box_port}\n"},
        host="alias",
    ),
    Row("Include of itself", "Include {d}/row/config\n"),
    Row("Include of nothing", "Include {d}/row/absent\n"),
    Row(
        "Include within a Host",
        "Host box\n  Include {d}/row/more\nHost *\n",
        files={"more": "IdentityFile {d}/stranger\n"},
    ),
    Row("Match host", "Match host 127.0.0.1\n  Port {box_port}\n", host="127.0.0.1"),
    Row(
        "Match originalhost",
        "Match originalhost x\n  HostName 127.0.0.1\n  Port {box_port}\n",
        host="x",
    ),
    Row("Match user", "Match user nobody-else\n  Port {box_port}\n", host="127.0.0.1"),
    Row(
        "Match exec that holds",
        'Match exec "test %h = 127.0.0.1"\n  Port {box_port}\n',
        host="127.0.0.1",
    ),
    Row(
        "Match exec that does not",
        'Match exec "test %h = x"\n  Port {box_port}\n',
        host="127.0.0.1",
    ),
    Row("Match final", "Match final host 127.0.0.1\n  Port {box_port}\n", host="127.0.0.1"),
    Row("Match all", "Match all\n  Port {box_port}\n", host="127.0.0.1"),
    Row("Match negated", "Match !host box,other\n  Port {box_port}\n", host="127.0.0.1"),
    Row("keyword = value, quotes, case", 'HOST="box"\n  hostname = 127.0.0.1\n  port={box_port}\n'),
    Row("a keyword that nobody knows", "Host box\n  NoSuchKeyword yes\n"),
    Row("an unknown keyword, ignored", "IgnoreUnknown NoSuch*\nNoSuchKeyword yes\n"),
    Row("the first value wins", "Host box\n  Port 1\nHost box\n  Port {box_port}\n"),
    # --- tokens
    Row("HostName %h", "Host 127.*\n  HostName %h\n  Port {box_port}\n", host="127.0.0.1"),
    Row(
        "tokens in IdentityFile",
        "Host box\n  IdentityFile {d}/row/%r_%h_%p_%n_%u_%%\n",
        files={"{user}_127.0.0.1_{box_port}_box_{user}_%": "<key>"},
        known=KNOWN,
    ),
    Row("%d", "Host box\n  IdentityFile %d/..{d}/key\n"),
    Row("an environment variable", "Host box\n  IdentityFile ${{HOSTLESS_TEST}}/key\n"),
    Row("an environment variable that is not there", "IdentityFile ${{NO_SUCH_VARIABLE}}/key\n"),
    Row("a token that nobody knows", "IdentityFile {d}/%y\n"),
    # --- keys and certificates
    Row(
        "several IdentityFiles, the last is right",
        "IdentityFile {d}/stranger\nIdentityFile {d}/absent\nIdentityFile {d}/rsa\n",
    ),
    Row("IdentityFile none", "IdentityFile none\n"),
    Row("RSA in PEM", "IdentityFile {d}/PEM\n"),
    Row("RSA in PKCS#8", "IdentityFile {d}/PKCS8\n"),
    Row("ECDSA", "IdentityFile {d}/ec\n"),
    Row("an encrypted key beside a good one", "IdentityFile {d}/locked\n"),
    Row("CertificateFile", "IdentityFile {d}/certified\nCertificateFile {d}/certificate.pub\n"),
    Row("a key without its certificate", "IdentityFile {d}/certified\nIdentityFile none\n"),
    Row("the agent", "IdentitiesOnly no\nIdentityAgent {d}/agent\nIdentityFile {d}/stranger\n"),
    Row(
        "the agent's key by its public half",
        "IdentityAgent {d}/agent\nIdentityFile {d}/with_agent.pub\n",
    ),
    Row("PubkeyAuthentication no", "PubkeyAuthentication no\n"),
    # --- known hosts
    Row("nothing is known", known=""),
    Row("hashed", known="{hashed}\n"),
    Row("pattern", known="[127.0.0.*]:{box_port} {box_key}\n"),
    Row("pattern *", known="* {box_key}\n"),
    Row("question mark", known="[127.0.0.?]:{box_port} {box_key}\n"),
    Row("negated pattern", known="*,!{box} {box_key}\n"),
    Row("a list of names", known="x,{box},y {box_key}\n"),
    Row("without the port", known="127.0.0.1 {box_key}\n"),
    Row("another key without the port", known="127.0.0.1 {wrong_key}\n{box} {box_key}\n"),
    Row("the name as it was given", known="box {box_key}\n"),
    Row("another port's", known="[127.0.0.1]:1 {box_key}\n"),
    Row("old and new key of one type", known="{box} {wrong_key}\n{box} {box_key}\n"),
    Row("only the old key", known="{box} {wrong_key}\n"),
    Row("only another type's, wrong", known="{box} {wrong_ec}\n"),
    Row("several types", known="{box} {rsa_key}\n{box} {ec_key}\n{box} {box_key}\n"),
    Row("only RSA", known="{box} {rsa_key}\n"),
    Row(
        "a server that offers the second known type",
        known="{other} {other_key}\n{other} {ec_key}\n",
        host="other",
    ),
    Row("a server that offers no known type", known="{other} {other_key}\n", host="other"),
    Row("comments, tabs, CRLF, blanks", known="# x\r\n\r\n  {box}\t{box_key} a comment\r\n"),
    Row(
        "unreadable lines beside", known="x\n{other} ssh-ed25519 AAAA\n@what y z\n{box} {box_key}\n"
    ),
    Row("an unreadable line for it", known="{box} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDx\n"),
    Row("revoked", known="@revoked {box} {box_key}\n{box} {box_key}\n"),
    Row("revoked for another", known="@revoked x {box_key}\n{box} {box_key}\n"),
    Row("revoked for all", known="@revoked * {box_key}\n{box} {box_key}\n"),
    Row(
        "authority for it",
        known="@cert-authority {box} {host_ca}\n",
        named="@cert-authority in known_hosts: not supported",
    ),
    Row(
        "authority for it, beside its own key",
        known="@cert-authority {box} {host_ca}\n{box} {box_key}\n",
    ),
    Row("authority for others", known="@cert-authority *.example {host_ca}\n{box} {box_key}\n"),
    Row("HostKeyAlias", "Host box\n  HostKeyAlias us\n", known="us {box_key}\n"),
    Row("HostKeyAlias, and the name is known", "Host box\n  HostKeyAlias us\n"),
    Row(
        "several UserKnownHostsFiles",
        "UserKnownHostsFile {d}/row/absent {d}/row/second {d}/row/known_hosts\n",
        known="",
        files={"second": KNOWN},
    ),
    Row(
        "UserKnownHostsFile with a blank in its name",
        'UserKnownHostsFile "{d}/row/a b" /dev/null\n',
        known="",
        files={"a b": KNOWN},
    ),
    Row(
        "GlobalKnownHostsFile",
        "GlobalKnownHostsFile {d}/row/second\n",
        known="",
        files={"second": KNOWN},
    ),
    Row("UserKnownHostsFile none", "UserKnownHostsFile none\n"),
    Row("StrictHostKeyChecking accept-new", "StrictHostKeyChecking accept-new\n", known=""),
    Row(
        "accept-new of a changed key",
        "StrictHostKeyChecking accept-new\n",
        known="{box} {wrong_key}\n",
    ),
    Row("StrictHostKeyChecking no", "StrictHostKeyChecking no\n", known=""),
    Row(
        "StrictHostKeyChecking no of a changed key",
        "StrictHostKeyChecking no\n",
        known="{box} {wrong_key}\n",
        named="another key than it is known by",
    ),
    Row(
        "NoHostAuthenticationForLocalhost",
        "NoHostAuthenticationForLocalhost yes\n",
        known="",
        named="nohostauthenticationforlocalhost: not supported",
    ),
    # --- algorithms
    Row("HostKeyAlgorithms with the known one", "HostKeyAlgorithms ssh-ed25519\n"),
    Row("HostKeyAlgorithms without it", "HostKeyAlgorithms rsa-sha2-512\n"),
    Row("HostKeyAlgorithms, the unknown one first", "HostKeyAlgorithms rsa-sha2-512,ssh-ed25519\n"),
    Row("HostKeyAlgorithms, one removed", "HostKeyAlgorithms -ssh-rsa\n"),
    Row("a cipher that both have", "Ciphers aes256-ctr\nMACs hmac-sha2-256\n"),
    Row(
        "a cipher that paramiko lacks",
        "Ciphers chacha20-poly1305@openssh.com\n",
        named="ciphers: none of these is supported here",
    ),
    Row("a cipher that nobody has", "Ciphers none-such\n"),
    # --- what stands in the way
    Row("RemoteCommand", "RemoteCommand true\n"),
    Row("AddressFamily inet6", "AddressFamily inet6\n"),
    Row(
        "RevokedHostKeys",
        "RevokedHostKeys {d}/row/revoked\n",
        files={"revoked": "{wrong_key}\n"},
        named="revokedhostkeys: not supported",
    ),
    Row(
        "user and port of the options win",
        "Host box\n  User nobody\n  Port 1\n",
        user="user",
        port="box_port",
    ),
    Row("an empty file", whole=True, host="127.0.0.1", port="box_port"),
]


def write(lab: Lab, row: Row) -> Path:
    """Write the row's files, as they are before anybody has read them."""
    words = lab.words
    directory = lab.directory / "row"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for name, text in row.files.items():
        content = (lab.directory / "key").read_text() if text == "<key>" else text.format(**words)
        path = directory / name.format(**words)
        path.write_text(content)
        path.chmod(0o600)
    (directory / "known_hosts").write_text(row.known.format(**words))
    config = directory / "config"
    config.write_text(("" if row.whole else row.config + COMMON).format(**words))
    return config


def reached_by_client(lab: Lab, row: Row, config: Path) -> bool:
    if row.endless:
        return False
    user = ["-l", str(lab.words[row.user])] if row.user else []
    port = ["-p", str(lab.words[str(row.port)])] if row.port else []
    asked = ["ssh", "-F", config, "-o", "BatchMode=yes", *user, *port, row.host, "true"]
    done = subprocess.run(
        asked, capture_output=True, timeout=60, stdin=subprocess.DEVNULL, check=False
    )
    print(done.stderr.decode())  # for whoever reads a failure
    return done.returncode == 0


async def refusal(lab: Lab, row: Row, config: Path) -> str:
    """What the transport says; empty if it reaches the machine."""
    target = {"host": row.host, "user": row.user and lab.words[row.user]}
    target["port"] = row.port and lab.words[str(row.port)]
    access = SshAccess.model_validate(
        {"target": target, "ssh_config": True, "connect_timeout_s": 60.0}
    )
    hub_known = lab.directory / "row" / "hub" / "known_hosts"
    material = LoginMaterial(KnownHosts(hub_known), config, Secrets(lab.directory, {}))
    with ThreadPoolExecutor(2) as threads:
        transport = SshTransport(access, material, threads)
        try:
            await transport.run(Command(["true"]))
        except TransportError as error:
            return str(error)
        finally:
            await transport.aclose()
    return ""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_it_reaches_what_ssh_reaches(
    lab: Lab, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTLESS_TEST", str(lab.directory))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    theirs = await asyncio.to_thread(reached_by_client, lab, row, write(lab, row))
    said = await refusal(lab, row, write(lab, row))
    if row.named:
        assert theirs, "what is named as not supported is what ssh takes"
        assert re.search(re.escape(row.named), said)
    else:
        assert (not said) == theirs, said


def test_the_table_is_worth_its_name() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) >= 40
