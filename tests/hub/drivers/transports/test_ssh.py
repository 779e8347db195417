"""The SSH transport against OpenSSH: commands, files, keys, and everything that goes wrong (G2)."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ports
import pytest
from peers import login_shells
from peers.sshd import Sshd, make_key

from hostler_hub.drivers.transports.contract import Command
from hostler_hub.drivers.transports.errors import (
    AuthenticationFailed,
    HostKeyChanged,
    HostKeyUnknown,
    NotConfigured,
    NotWritten,
    OutputTooLarge,
    Refused,
    TransportTimeout,
    Unreachable,
)
from hostler_hub.drivers.transports.ssh import client_config, session
from hostler_hub.drivers.transports.ssh import transport as ssh_transport
from hostler_hub.drivers.transports.ssh.login import Login
from hostler_hub.drivers.transports.ssh.tunnel import Tunnels

if TYPE_CHECKING:
    from conftest import MakeSshd, MakeTransport

    from hostler_hub.drivers.transports.ssh.login import LoginMaterial
    from hostler_hub.drivers.transports.ssh.transport import SshTransport

pytestmark = pytest.mark.peer("sshd")


async def test_a_command_s_status_and_streams_are_its_own(
    make_sshd: MakeSshd, make_transport: MakeTransport
) -> None:
    transport = make_transport(make_sshd())
    argv = ["/bin/sh", "-c", 'cat; printf %s "$1" >&2; exit 7', "sh", "it's; $HOME `x` \n é"]
    outcome = await transport.run(Command(argv, b"in\0put"))
    assert outcome.status == 7
    assert outcome.stdout == b"in\0put"
    assert outcome.stderr.decode() == "it's; $HOME `x` \n é"


async def test_megabytes_both_ways_arrive_whole(
    make_sshd: MakeSshd, make_transport: MakeTransport
) -> None:
    transport = make_transport(make_sshd())
    content = os.urandom(4 * 1024 * 1024)
    outcome = await transport.run(Command(["cat"], content, output_bytes=len(content)))
    assert outcome.stdout == content


async def test_more_calls_than_sessions_share_one_connection(
    make_sshd: MakeSshd, make_transport: MakeTransport
) -> None:
    sshd = make_sshd()
    transport = make_transport(sshd)
    outcomes = await asyncio.gather(
        *(transport.run(Command(["echo", str(number)])) for number in range(24))
    )
    assert [int(each.stdout) for each in outcomes] == list(range(24))
    log = (sshd.directory / "sshd.log").read_text()
    assert log.count("Accepted publickey") == 1


async def test_a_machine_that_allows_fewer_sessions_is_asked_again_when_one_is_over(
    make_sshd: MakeSshd, make_transport: MakeTransport
) -> None:
    """Several are refused at once, all the time, for longer than the pauses are."""
    sshd = make_sshd("MaxSessions 2")
    transport = make_transport(sshd)
    outcomes = await asyncio.gather(
        *(transport.run(Command(["sh", "-c", f"sleep 0.5; echo {n}"])) for n in range(12))
    )
    assert [int(each.stdout) for each in outcomes] == list(range(12))
    log = (sshd.directory / "sshd.log").read_text()
    assert "no more sessions" in log
    assert log.count("Accepted publickey") == 1


async def test_a_machine_that_allows_no_session_is_told_of_as_such(
    make_sshd: MakeSshd, make_transport: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "SESSION_PAUSES_S", (0.01, 0.01))
    transport = make_transport(make_sshd("MaxSessions 0"))
    with pytest.raises(Refused, match=r"opens no session: .* MaxSessions") as caught:
        await transport.run(Command(["true"]))
    assert not caught.value.sent


async def test_who_gives_up_before_a_session_is_free_leaves_the_others_theirs(
    make_sshd: MakeSshd, make_transport: MakeTransport, tmp_path: Path
) -> None:
    transport = make_transport(make_sshd("MaxSessions 1"))
    sent, may_end = asyncio.Event(), tmp_path / "may-end"
    loop = asyncio.get_running_loop()
    script = f"until [ -e {may_end} ]; do sleep 0.05; done; echo done"
    first = Command(["sh", "-c", script], sending=lambda: loop.call_soon_threadsafe(sent.set))
    running = asyncio.create_task(transport.run(first))
    await sent.wait()
    with pytest.raises(TransportTimeout) as caught:
        await transport.run(Command(["true"], deadline_s=1))
    assert not caught.value.sent
    may_end.touch()
    assert (await running).stdout == b"done\n"
    assert (await transport.run(Command(["echo", "more"]))).stdout == b"more\n"


def wait_for_log(sshd: Sshd, words: str) -> None:
    deadline = time.monotonic() + 60
    while words not in (sshd.directory / "sshd.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_who_is_cancelled_before_its_time_leaves_the_connection(
    make_sshd: MakeSshd, make_transport: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tunnel may lead through it."""
    monkeypatch.setattr(session, "SESSION_PAUSES_S", (0.05,) * 1000)  # it is not told before
    sshd = make_sshd("MaxSessions 0")
    transport = make_transport(sshd)
    with transport.hold():
        connection = await transport.connected()
        waiting = asyncio.create_task(transport.run(Command(["true"])))
        await asyncio.to_thread(wait_for_log, sshd, "no more sessions")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        assert await transport.connected() is connection
        assert connection.is_active()


async def test_G2_a_connection_that_hangs_is_not_used_again(
    make_sshd: MakeSshd, make_transport: MakeTransport
) -> None:
    sshd = make_sshd()
    transport = make_transport(sshd)
    await transport.run(Command(["true"]))
    with sshd.hung(), pytest.raises(TransportTimeout) as caught:
        await transport.run(Command(["true"], deadline_s=1))
    assert not caught.value.sent
    assert (await transport.run(Command(["echo", "again"]))).stdout == b"again\n"
    log = (sshd.directory / "sshd.log").read_text()
    assert log.count("Accepted publickey") == 2


async def test_who_does_not_read_to_the_end_is_heard_all_the_same(
    make_sshd: MakeSshd, make_transport: MakeTransport
) -> None:
    """More than the window takes, so that the command is over before all is sent."""
    transport = make_transport(make_sshd())
    refusing = Command(["sh", "-c", "echo no; exit 91"], content=b"x" * 8_000_000)
    outcome = await transport.run(refusing)
    assert (outcome.status, outcome.stdout) == (91, b"no\n")


async def test_files_go_there_and_back(
    make_sshd: MakeSshd, make_transport: MakeTransport, tmp_path: Path
) -> None:
    transport = make_transport(make_sshd())
    content, path = os.urandom(300_000), tmp_path / "file"
    await transport.put(str(path), content, 60)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (content, 0o600)
    assert await transport.fetch(str(path), len(content), 60) == content
    with pytest.raises(OutputTooLarge):
        await transport.fetch(str(path), len(content) - 1, 60)
    with pytest.raises(Refused):
        await transport.put(str(path), b"another", 60)
    assert path.read_bytes() == content


async def test_V15_output_beyond_the_limit_ends_the_command(
    make_sshd: MakeSshd, make_transport: MakeTransport
) -> None:
    transport = make_transport(make_sshd())
    with pytest.raises(OutputTooLarge) as caught:
        await transport.run(Command(["yes"], output_bytes=100_000))
    assert caught.value.sent


async def test_a_deadline_is_kept_whatever_the_command_does(
    make_sshd: MakeSshd, make_transport: MakeTransport
) -> None:
    transport = make_transport(make_sshd())
    await transport.run(Command(["true"]))
    began = time.monotonic()
    with pytest.raises(TransportTimeout) as caught:
        await transport.run(Command(["sleep", "60"], deadline_s=5))
    assert caught.value.sent
    assert time.monotonic() - began < 45
    assert (await transport.run(Command(["echo", "still there"]))).stdout == b"still there\n"


async def test_G2_refused_and_silent_servers(
    make_sshd: MakeSshd, make_transport: MakeTransport
) -> None:
    sshd = make_sshd()
    sshd.stop()
    with pytest.raises(Unreachable, match="Connection refused") as caught:
        await make_transport(sshd).run(Command(["true"]))
    assert not caught.value.sent
    with socket.create_server(("127.0.0.1", sshd.port)):
        transport = make_transport(sshd)
        with pytest.raises(TransportTimeout) as late:
            await transport.run(Command(["true"], deadline_s=1))
        assert not late.value.sent
        transport.access = transport.access.model_copy(update={"connect_timeout_s": 0.2})
        with pytest.raises((Unreachable, TransportTimeout)):
            await transport.run(Command(["true"], deadline_s=3))


async def test_G2_a_name_that_leads_nowhere(
    make_sshd: MakeSshd, make_transport: MakeTransport
) -> None:
    with pytest.raises(Unreachable, match="is option 'host' right"):
        await make_transport(make_sshd(), host="no-such-host.invalid").run(Command(["true"]))


async def test_G2_a_changed_key_is_never_accepted(
    make_sshd: MakeSshd, make_transport: MakeTransport
) -> None:
    sshd = make_sshd()
    transport = make_transport(sshd, accept_new=True)
    await transport.run(Command(["true"]))
    sshd.stop()
    sshd.change_host_key()
    sshd.start()
    with pytest.raises(HostKeyChanged, match=r"SHA256:.*instead of .*SHA256:") as caught:
        await transport.run(Command(["true"]))
    assert not caught.value.sent


async def test_G2_a_key_accepted_at_first_contact_is_kept(
    make_sshd: MakeSshd, make_transport: MakeTransport, material: LoginMaterial
) -> None:
    sshd = make_sshd()
    with pytest.raises(HostKeyUnknown, match="set option 'host_key' to 'ssh-ed25519 AAAA"):
        await make_transport(sshd, host_key=None).run(Command(["true"]))
    assert not material.known.path.exists()
    await make_transport(sshd, host_key=None, accept_new=True).run(Command(["true"]))
    assert sshd.public_host_key in material.known.path.read_text()
    await make_transport(sshd, host_key=None).run(Command(["true"]))
    sshd.stop()
    sshd.change_host_key()
    sshd.start()
    with pytest.raises(HostKeyChanged):
        await make_transport(sshd, host_key=None, accept_new=True).run(Command(["true"]))


async def test_G2_wrong_credentials_name_the_user_and_the_options(
    make_sshd: MakeSshd, make_transport: MakeTransport, material: LoginMaterial, tmp_path: Path
) -> None:
    sshd = make_sshd()
    make_key(tmp_path / "other")
    (tmp_path / "secrets" / "other").write_text((tmp_path / "other").read_text())
    with pytest.raises(AuthenticationFailed, match=r"does not let us in.*user, key and password"):
        await make_transport(sshd, key={"file": "other"}).run(Command(["true"]))
    with pytest.raises(AuthenticationFailed, match="secret file absent"):
        await make_transport(sshd, key={"file": "absent"}).run(Command(["true"]))
    (tmp_path / "secrets" / "garbage").write_text("no key at all")
    with pytest.raises(AuthenticationFailed, match="no private key") as caught:
        await make_transport(sshd, key={"file": "garbage"}).run(Command(["true"]))
    assert "no key at all" not in str(caught.value)


async def test_an_encrypted_key_needs_its_passphrase(
    make_sshd: MakeSshd, make_transport: MakeTransport, tmp_path: Path
) -> None:
    sshd = make_sshd()
    make_key(tmp_path / "locked", "open sesame")
    (tmp_path / "secrets" / "locked").write_text((tmp_path / "locked").read_text())
    (tmp_path / "secrets" / "phrase").write_text("open sesame")
    (sshd.directory / "authorized_keys").write_text((tmp_path / "locked.pub").read_text())
    with pytest.raises(AuthenticationFailed, match="give its 'passphrase'"):
        await make_transport(sshd, key={"file": "locked"}).run(Command(["true"]))
    opened = make_transport(sshd, key={"file": "locked"}, passphrase={"file": "phrase"})
    assert (await opened.run(Command(["true"]))).status == 0


async def test_G2_a_connection_that_dropped_is_opened_again(
    make_sshd: MakeSshd, make_transport: MakeTransport
) -> None:
    sshd = make_sshd()
    transport = make_transport(sshd)
    await transport.run(Command(["true"]))
    sshd.drop()
    assert (await transport.run(Command(["echo", "again"]))).stdout == b"again\n"


async def test_an_idle_connection_is_closed_and_opened_again(
    make_sshd: MakeSshd, make_transport: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_transport, "IDLE_S", 0.0)
    transport = make_transport(make_sshd())
    with transport.hold():
        connection = await transport.connected()
        assert (await transport.run(Command(["echo", "held"]))).stdout == b"held\n"
        assert await transport.connected() is connection
    await asyncio.to_thread(connection.join, 60)  # it is a thread
    assert not connection.is_active()
    assert (await transport.run(Command(["echo", "again"]))).stdout == b"again\n"


async def test_a_login_that_nobody_waits_for_any_more_is_ended(
    make_sshd: MakeSshd, make_transport: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    log_in, close = ssh_transport.log_in, Login.close

    def slow(*arguments: Any) -> Any:
        begun.set()
        go_on.wait(60)
        return log_in(*arguments)

    def noted(login: Login) -> None:
        close(login)
        ended.set()

    monkeypatch.setattr(ssh_transport, "log_in", slow)
    monkeypatch.setattr(Login, "close", noted)
    transport = make_transport(make_sshd())
    waiting = asyncio.create_task(transport.connected())
    await asyncio.to_thread(begun.wait, 60)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    go_on.set()
    assert await asyncio.to_thread(ended.wait, 60)


async def test_G2_a_drop_during_a_command_says_that_it_was_sent(
    make_sshd: MakeSshd, make_transport: MakeTransport
) -> None:
    sshd = make_sshd()
    transport = make_transport(sshd)
    sent = asyncio.Event()
    loop = asyncio.get_running_loop()
    command = Command(["sleep", "60"], sending=lambda: loop.call_soon_threadsafe(sent.set))
    running = asyncio.create_task(transport.run(command))
    await sent.wait()
    await asyncio.to_thread(sshd.drop)
    with pytest.raises(Unreachable) as caught:
        await running
    assert caught.value.sent


async def test_G2_logins_beyond_MaxStartups_are_tried_again(
    make_sshd: MakeSshd, make_transport: MakeTransport
) -> None:
    """Every other one is dropped at random while another is about to log in."""
    sshd = make_sshd("MaxStartups 1:50:10")
    with socket.create_connection((sshd.address, sshd.port)):
        outcomes = await asyncio.gather(
            *(make_transport(sshd).run(Command(["true"])) for _ in range(3)), return_exceptions=True
        )
    assert [each for each in outcomes if not isinstance(each, Unreachable)]
    for each in outcomes:
        if isinstance(each, Unreachable):
            assert not each.sent
            assert "connection broke" in str(each)


async def test_jump_hosts_are_gone_through_and_checked(
    make_sshd: MakeSshd, make_transport: MakeTransport
) -> None:
    outer, inner, target = make_sshd(), make_sshd(), make_sshd()
    transport = make_transport(target, jump=(outer, inner))
    assert (await transport.run(Command(["echo", "through"]))).stdout == b"through\n"
    assert all(
        "Accepted publickey" in (each.directory / "sshd.log").read_text()
        for each in (outer, inner, target)
    )


async def test_G2_a_jump_host_s_changed_key_is_never_accepted(
    make_sshd: MakeSshd, make_transport: MakeTransport
) -> None:
    outer, target = make_sshd(), make_sshd()
    transport = make_transport(target, jump=(outer,))
    outer.stop()
    outer.change_host_key()
    outer.start()
    with pytest.raises(HostKeyChanged, match=r"SHA256:.*instead of .*SHA256:"):
        await transport.run(Command(["true"]))


async def test_an_ssh_config_s_alias_and_jump_host(
    make_sshd: MakeSshd, make_transport: MakeTransport, material: LoginMaterial
) -> None:
    outer, target = make_sshd(), make_sshd()
    material.ssh_config.parent.mkdir(exist_ok=True)
    material.ssh_config.write_text(
        f"Host builder\n  HostName {target.address}\n  Port {target.port}\n  ProxyJump outer\n"
        f"Host outer\n  HostName {outer.address}\n  Port {outer.port}\n"
        f"Host *\n  User {target.user}\n"
        f"  IdentityFile {target.client_key}\n  IdentityFile {outer.client_key}\n"
    )
    transport = make_transport(target, host="builder", port=None, user=None, key=None)
    transport.access = transport.access.model_copy(update={"ssh_config": True})
    with pytest.raises(HostKeyUnknown, match=str(outer.port)):
        await transport.run(Command(["true"]))
    for each in (outer, target):
        with material.known.path.open("a") as known:
            known.write(f"[{each.address}]:{each.port} {each.public_host_key}\n")
    assert (await transport.run(Command(["echo", "through"]))).stdout == b"through\n"


ODD = "it's; $HOME `x` \\ \\\\ \\n ! !! ~ * ? [a] {b} %s # & | < > ( ) \" é"


@pytest.mark.peer("login-shells")
@pytest.mark.parametrize("shell", login_shells.SHELLS)
async def test_a_command_gets_through_every_login_shell(
    make_sshd: MakeSshd, make_transport: MakeTransport, tmp_path: Path, shell: str
) -> None:
    """Also where its start-up file prints."""
    sshd = make_sshd(f'ForceCommand {shutil.which(shell)} -c "$SSH_ORIGINAL_COMMAND"')
    transport = make_transport(sshd)
    for noise in ("", "echo Welcome to the farm\necho @hostler-begin\n"):
        if noise and shell in login_shells.START_UP_FILES:
            file = sshd.directory / login_shells.START_UP_FILES[shell]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(noise)
            made = await transport.run(Command(["true"]))
        argv = ["sh", "-c", 'cat; printf %s "$1" >&2; exit 7', "sh", f"{ODD}\n{ODD}\n\n"]
        made = await transport.run(Command(argv, b"in\0put\n"))
        assert (made.status, made.stdout) == (7, b"in\0put\n")
        assert made.stderr.decode() == f"{ODD}\n{ODD}\n\n"
        content, path = os.urandom(100_000), tmp_path / f"file {len(noise)}"
        await transport.put(str(path), content, 60)
        assert path.read_bytes() == content
        assert await transport.fetch(str(path), len(content), 60) == content


@pytest.mark.peer("login-shells")
def test_what_a_start_up_file_prints_is_there_to_be_left_out(tmp_path: Path) -> None:
    """The test above would prove nothing otherwise."""
    for shell, name in login_shells.START_UP_FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("echo Welcome\n")
        home = {**os.environ, "HOME": str(tmp_path), "SSH_CLIENT": "1 2 3", "SHLVL": "0"}
        home.pop("XDG_CONFIG_HOME", None)
        said = subprocess.run([shell, "-c", "true"], env=home, capture_output=True, check=True)
        assert b"Welcome" in said.stdout, shell


@pytest.mark.parametrize(
    ("forced", "words"),
    [
        ("echo This account is currently not available.; exit 1", "currently not available"),
        ("exit 3", "exit status 3"),
        ("cat >/dev/null; echo done", "runs no commands"),
    ],
)
async def test_an_account_that_runs_no_commands_is_told_of_as_such(
    make_sshd: MakeSshd, make_transport: MakeTransport, forced: str, words: str
) -> None:
    transport = make_transport(make_sshd(f"ForceCommand {forced}"))
    with pytest.raises(Refused, match="login shell of the account runs no commands") as caught:
        await transport.run(Command(["true"], b"x" * 3_000_000))
    assert words in str(caught.value)
    assert not caught.value.sent  # it was certainly not run


async def test_a_file_that_cannot_be_written_says_why_and_is_not_left(
    make_sshd: MakeSshd, make_transport: MakeTransport, tmp_path: Path
) -> None:
    transport = make_transport(make_sshd())
    (tmp_path / "there").write_text("before")
    with pytest.raises(NotWritten, match=r"/there: .*File exists"):
        await transport.put(str(tmp_path / "there"), b"after", 60)
    assert (tmp_path / "there").read_text() == "before"
    with pytest.raises(NotWritten, match=r"/no/such/file: .*(nonexistent|No such file)"):
        await transport.put("/no/such/file", b"", 60)
    with pytest.raises(Refused, match="No such file"):
        await transport.fetch(str(tmp_path / "absent"), 10, 60)


async def test_a_connection_from_before_the_server_was_mended_is_not_kept(
    make_sshd: MakeSshd, make_transport: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "SESSION_PAUSES_S", (0.01,))
    sshd = make_sshd("MaxSessions 0")
    transport = make_transport(sshd)
    with transport.hold():
        with pytest.raises(Refused, match="MaxSessions"):
            await transport.run(Command(["true"]))
        sshd.reconfigure()
        transport.renew()
        assert (await transport.run(Command(["echo", "mended"]))).stdout == b"mended\n"


async def test_renewing_leaves_running_calls_and_tunnels(
    make_sshd: MakeSshd, make_transport: MakeTransport, tmp_path: Path
) -> None:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hub\n")
        await writer.drain()
        writer.close()

    async def said_through(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        said = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return said

    sshd = make_sshd()
    transport, tunnels = make_transport(sshd), Tunnels(tmp_path / "hub.sock")
    async with await asyncio.start_unix_server(greet, tmp_path / "hub.sock"):
        port = await tunnels.ensure(transport, "first", None)
        loop, sent = asyncio.get_running_loop(), asyncio.Event()
        command = Command(["cat"], b"whole", sending=lambda: loop.call_soon_threadsafe(sent.set))
        running = asyncio.create_task(transport.run(command))
        await sent.wait()
        transport.renew()
        assert (await running).stdout == b"whole"
        assert (await transport.run(Command(["echo", "new"]))).stdout == b"new\n"
        assert (sshd.directory / "sshd.log").read_text().count("Accepted publickey") == 2
        assert await said_through(port) == b"hub\n"
        # Another instance's port, as a hub that was restarted knows it, is opened beside.
        other = ports.free()
        assert await tunnels.ensure(transport, "second", other) == other
        assert await said_through(other) == b"hub\n"
        await tunnels.release("first")
        assert await said_through(other) == b"hub\n"
        await tunnels.release("second")
        with pytest.raises(ConnectionRefusedError):
            await said_through(other)
        await tunnels.aclose()


def by_config(
    transport: SshTransport, material: LoginMaterial, sshd: Sshd, *lines: str
) -> SshTransport:
    """Reached by an ssh_config with these lines, which names a machine `builder`."""
    material.ssh_config.parent.mkdir(exist_ok=True)
    material.ssh_config.write_text("\n".join((*lines, "")))
    material.known.path.write_text(f"[{sshd.address}]:{sshd.port} {sshd.public_host_key}\n")
    transport.access = transport.access.model_copy(update={"ssh_config": True})
    return transport


async def test_a_server_that_wants_two_keys_gets_them(
    make_sshd: MakeSshd, make_transport: MakeTransport, material: LoginMaterial, tmp_path: Path
) -> None:
    sshd = make_sshd("AuthenticationMethods publickey,publickey")
    second = make_key(tmp_path / "second")
    with (sshd.directory / "authorized_keys").open("a") as keys:
        keys.write(second.with_suffix(".pub").read_text())
    transport = by_config(
        make_transport(sshd), material, sshd, "IdentitiesOnly yes", f"IdentityFile {second}"
    )
    assert (await transport.run(Command(["echo", "both"]))).stdout == b"both\n"


async def test_V14_programs_of_the_ssh_config_get_no_secret_of_the_hub_s_environment(
    make_sshd: MakeSshd,
    make_transport: MakeTransport,
    material: LoginMaterial,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("HOSTLER_SECRET_X", "hush")
    monkeypatch.setenv("HOSTLESS", "said")
    sshd = make_sshd()
    lines = (
        f'Match exec "env > {tmp_path}/condition"',
        f"  ProxyCommand sh -c 'env > {tmp_path}/proxy; exit 1'",
    )
    transport = by_config(make_transport(sshd), material, sshd, *lines)
    with pytest.raises(Unreachable):
        await transport.run(Command(["true"]))
    for name in ("condition", "proxy"):
        said = (tmp_path / name).read_text()
        assert "hush" not in said
        assert "HOSTLESS=said" in said


async def test_what_a_shell_would_take_for_more_than_a_user_does_not_reach_the_ssh_config(
    make_sshd: MakeSshd, make_transport: MakeTransport, material: LoginMaterial
) -> None:
    sshd = make_sshd()
    transport = by_config(make_transport(sshd, user="machine$"), material, sshd)
    with pytest.raises(NotConfigured, match=r"option 'user': 'machine\$'"):
        await transport.run(Command(["true"]))


async def test_a_hub_without_the_client_says_what_to_install(
    make_sshd: MakeSshd,
    make_transport: MakeTransport,
    material: LoginMaterial,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_config, "CLIENT", "no-such-ssh")
    sshd = make_sshd()
    with pytest.raises(NotConfigured, match=r"option 'ssh_config'.*openssh-client"):
        await by_config(make_transport(sshd), material, sshd).run(Command(["true"]))
    assert (await make_transport(sshd).run(Command(["true"]))).status == 0


async def test_a_jump_host_that_is_away_is_named_with_where_it_leads(
    make_sshd: MakeSshd, make_transport: MakeTransport
) -> None:
    outer, target = make_sshd(), make_sshd()
    transport = make_transport(target, jump=(outer,))
    outer.stop()
    told = rf"on the way to .*:{target.port}: .*:{outer.port} cannot be reached: Connection refused"
    with pytest.raises(Unreachable, match=told):
        await transport.run(Command(["true"]))
    outer.start()
    target.stop()
    with pytest.raises(Unreachable, match=rf":{target.port}: the way there was refused"):
        await transport.run(Command(["true"]))
