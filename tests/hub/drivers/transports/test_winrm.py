"""The WinRM transport against a service whose commands Wine runs, and all that goes wrong (G3)."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, authority
from peers import wine
from peers.wsman import WsMan, wait_until

from hostler_hub.drivers.transports.contract import Command
from hostler_hub.drivers.transports.errors import (
    AuthenticationFailed,
    HostKeyChanged,
    HostKeyUnknown,
    OutputTooLarge,
    Refused,
    TransportTimeout,
    Unreachable,
)
from hostler_hub.drivers.transports.winrm.access import WinrmAccess
from hostler_hub.drivers.transports.winrm.http import digest
from hostler_hub.drivers.transports.winrm.transport import WinrmTransport
from hostler_hub.runtime.secrets import Secrets

pytestmark = pytest.mark.peer("wsman")

CMD = ["cmd.exe", "/d", "/c"]
SLEEP = "import time; time.sleep(600)"
MakeService = Callable[..., WsMan]
MakeTransport = Callable[..., WinrmTransport]


@pytest.fixture
def python() -> str:
    return wine.windows_path(wine.windows().python)


@pytest.fixture
def issuer(tmp_path: Path) -> Authority:
    return authority(tmp_path)


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[MakeService]:
    made: list[WsMan] = []

    def make(**options: Any) -> WsMan:
        made.append(WsMan(tmp_path / f"service-{len(made)}", **options))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def service(make_service: MakeService) -> WsMan:
    return make_service()


@pytest.fixture
async def make_transport(
    tmp_path: Path, python: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[MakeTransport]:
    # Who asks whether all shells are closed has waited for them, however slow the machine is.
    monkeypatch.setattr("hostler_hub.drivers.transports.winrm.session.CLOSE_S", 60.0)
    (tmp_path / "secrets").mkdir()
    threads, made = ThreadPoolExecutor(8), []

    def make(service: WsMan, **changes: Any) -> WinrmTransport:
        (tmp_path / "secrets" / "password").write_text(service.password)
        access = {
            "host": "127.0.0.1",
            "port": service.port,
            "user": service.user,
            "password": {"file": "password"},
            "tls": False,
            "python": python,
            **changes,
        }
        secrets = Secrets(tmp_path / "secrets", {})
        made.append(WinrmTransport(WinrmAccess.model_validate(access), secrets, threads))
        return made[-1]

    yield make
    for each in made:
        await each.aclose()
    threads.shutdown(cancel_futures=True)


async def test_a_command_s_status_and_streams_are_its_own(
    service: WsMan, make_transport: MakeTransport, python: str
) -> None:
    transport = make_transport(service)
    program = (
        "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()); "
        "sys.stderr.write(ascii(sys.argv[1:])); sys.exit(7)"
    )
    hard = ["a b", "&whoami|<>^", "C:\\x y\\", "it's; $HOME", "é", ""]
    outcome = await transport.run(Command([python, "-c", program, *hard], b"in\0put\r\n\xff"))
    assert outcome.status == 7
    assert outcome.stdout == b"in\0put\r\n\xff"
    assert outcome.stderr.decode() == ascii(hard)


async def test_a_password_that_was_changed_is_used_for_the_next_command(
    service: WsMan, make_transport: MakeTransport, tmp_path: Path
) -> None:
    """And no session goes on that was opened with the old one."""
    transport = make_transport(service)
    await transport.run(Command([*CMD, "echo", "hello"]))
    (tmp_path / "secrets" / "password").write_text("another")
    with pytest.raises(AuthenticationFailed, match="does not let us in"):
        await transport.run(Command([*CMD, "echo", "hello"]))
    (tmp_path / "secrets" / "password").unlink()
    with pytest.raises(AuthenticationFailed, match="option 'password'"):
        await transport.run(Command([*CMD, "echo", "hello"]))
    (tmp_path / "secrets" / "password").write_text(service.password)
    assert (await transport.run(Command([*CMD, "echo", "hello"]))).status == 0


@pytest.mark.parametrize("argument", ["%PATH%", 'a"b', "a\nb", "a\0b", "x" * 9000])
async def test_what_cmd_would_change_is_refused_before_it_is_sent(
    service: WsMan, make_transport: MakeTransport, argument: str
) -> None:
    with pytest.raises(Refused, match=r"cmd.exe would change|characters") as caught:
        await make_transport(service).run(Command([*CMD, "echo", argument]))
    assert not caught.value.sent
    assert service.lines == []


async def test_V14_messages_are_sealed_where_there_is_no_TLS(
    service: WsMan, make_transport: MakeTransport
) -> None:
    transport = make_transport(service)
    await transport.run(Command([*CMD, "echo", "hidden"], b"confidential"))
    assert len(service.bodies) >= 5
    for body in service.bodies:
        assert b"HTTP-SPNEGO-session-encrypted" in body
        assert b"Envelope" not in body


async def test_megabytes_arrive_whole_in_pieces(
    service: WsMan, make_transport: MakeTransport, python: str
) -> None:
    content = os.urandom(400_000)
    program = "import sys, hashlib; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    transport = make_transport(service)
    outcome = await transport.run(Command([python, "-c", program], content))
    assert outcome.stdout.decode().strip() == hashlib.sha256(content).hexdigest()
    assert service.actions.count("Send") == 7


async def test_files_go_there_and_back(
    service: WsMan, make_transport: MakeTransport, tmp_path: Path
) -> None:
    transport = make_transport(service)
    content, path = os.urandom(300_000), tmp_path / "a file"
    there = wine.windows_path(path)
    await transport.put(there, content, 60)
    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o007 == 0  # Wine takes a group for the administrators
    assert await transport.fetch(there, len(content), 60) == content
    with pytest.raises(OutputTooLarge):
        await transport.fetch(there, len(content) - 1, 60)
    with pytest.raises(Refused, match="a file"):
        await transport.put(there, b"another", 60)
    assert path.read_bytes() == content
    with pytest.raises(Refused, match="absent"):
        await transport.fetch(there + ".absent", 10, 60)


async def test_sessions_are_used_again_and_shells_are_closed(
    service: WsMan, make_transport: MakeTransport
) -> None:
    transport = make_transport(service)
    outcomes = await asyncio.gather(
        *(transport.run(Command([*CMD, "echo", str(number)])) for number in range(8))
    )
    assert [int(each.stdout) for each in outcomes] == list(range(8))
    assert service.shells == set()
    assert len(service._connections) <= 6


async def test_a_shell_that_did_not_close_is_closed_in_another_session(
    service: WsMan, make_transport: MakeTransport
) -> None:
    transport = make_transport(service)
    service.faults["Delete"] = "drop once"
    assert (await transport.run(Command([*CMD, "echo", "1"]))).stdout == b"1\r\n"
    await asyncio.to_thread(wait_until, lambda: not service.shells)
    assert (await transport.run(Command([*CMD, "echo", "2"]))).stdout == b"2\r\n"


async def test_V15_output_beyond_the_limit_ends_the_command(
    service: WsMan, make_transport: MakeTransport, python: str
) -> None:
    program = "while True: print('y' * 1000)"
    with pytest.raises(OutputTooLarge) as caught:
        await make_transport(service).run(Command([python, "-c", program], output_bytes=100_000))
    assert caught.value.sent
    assert service.shells == set()


async def test_V15_an_endless_answer_is_not_read(
    service: WsMan, make_transport: MakeTransport
) -> None:
    service.faults["Receive"] = "flood"
    with pytest.raises(Refused, match=r"not as WinRM does.*more than 2097152 bytes"):
        await make_transport(service).run(Command([*CMD, "echo", "x"]))


@pytest.mark.parametrize("action", ["Create", "Command", "Send", "Receive", "Delete"])
async def test_G3_a_deadline_is_kept_whatever_the_service_does(
    service: WsMan, make_transport: MakeTransport, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = make_transport(service)
    await transport.run(Command([*CMD, "echo", "warm"]))
    service.faults[action] = "hang"  # for a minute, far beyond the deadline
    deadline_s = 8
    if action == "Delete":  # which is given up before, and no error by itself
        monkeypatch.setattr("hostler_hub.drivers.transports.winrm.session.CLOSE_S", 5.0)
        deadline_s = 4
    with pytest.raises(TransportTimeout) as caught:
        await transport.run(Command([*CMD, "echo", "x"], deadline_s=deadline_s))
    assert caught.value.sent is (action != "Create")
    service.faults.clear()
    assert (await transport.run(Command([*CMD, "echo", "again"]))).stdout == b"again\r\n"


async def test_G3_a_command_without_an_end_is_ended_with_its_shell(
    service: WsMan, make_transport: MakeTransport, python: str
) -> None:
    """pywinrm alone would go on asking for ever."""
    transport = make_transport(service)
    with pytest.raises(TransportTimeout) as caught:
        await transport.run(Command([python, "-c", SLEEP], deadline_s=8))
    assert caught.value.sent
    await asyncio.to_thread(wait_until, lambda: not service.shells)


async def test_G3_no_output_for_longer_than_a_poll_is_no_end(
    service: WsMan,
    make_transport: MakeTransport,
    python: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("hostler_hub.drivers.transports.winrm.session.POLL_S", 1)
    may_end = wine.windows_path(tmp_path / "may-end")
    program = (
        "import os, sys, time; "
        "[time.sleep(0.05) for _ in iter(lambda: os.path.exists(sys.argv[1]), True)]; print(1)"
    )
    command = Command([python, "-c", program, may_end], deadline_s=120)
    running = asyncio.create_task(make_transport(service).run(command))
    await asyncio.to_thread(wait_until, lambda: service.actions.count("Receive") >= 3)
    (tmp_path / "may-end").touch()
    assert (await running).stdout.strip() == b"1"


async def test_G3_a_service_that_accepts_and_says_nothing(
    service: WsMan, make_transport: MakeTransport
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        transport = make_transport(service, port=silent.getsockname()[1])
        with pytest.raises(TransportTimeout) as caught:
            await transport.run(Command([*CMD, "echo", "x"], deadline_s=1))
        assert not caught.value.sent


async def test_refused_connections_and_wrong_names(
    service: WsMan, make_transport: MakeTransport
) -> None:
    with pytest.raises(Unreachable, match="is option 'host' right"):
        await make_transport(service, host="no-such-host.invalid").run(Command([*CMD, "echo"]))
    transport = make_transport(service)
    service.stop()
    with pytest.raises(Unreachable, match=r"cannot be reached: Connection refused") as caught:
        await transport.run(Command([*CMD, "echo", "x"]))
    assert not caught.value.sent


async def test_a_session_that_was_dropped_is_opened_again(
    service: WsMan, make_transport: MakeTransport
) -> None:
    transport = make_transport(service)
    await transport.run(Command([*CMD, "echo", "x"]))
    service.drop()
    assert (await transport.run(Command([*CMD, "echo", "again"]))).stdout == b"again\r\n"


async def test_a_drop_during_a_command_says_that_it_was_sent(
    service: WsMan, make_transport: MakeTransport
) -> None:
    service.faults["Receive"] = "drop"
    with pytest.raises(Unreachable) as caught:
        await make_transport(service).run(Command([*CMD, "echo", "x"]))
    assert caught.value.sent


@pytest.mark.parametrize("auth", ["ntlm", "basic"])
async def test_wrong_credentials_name_the_options(
    make_service: MakeService,
    make_transport: MakeTransport,
    issuer: Authority,
    tmp_path: Path,
    auth: str,
) -> None:
    service = make_service(tls=issuer.server_context("127.0.0.1"))
    (tmp_path / "secrets" / "ca").write_text(issuer.ca_file.read_text())
    way = {"auth": auth, "tls": True, "ca": {"file": "ca"}}
    assert (await make_transport(service, **way).run(Command([*CMD, "echo", "x"]))).status == 0
    (tmp_path / "secrets" / "wrong").write_text("guessed wrong")
    wrong = make_transport(service, password={"file": "wrong"}, **way)
    with pytest.raises(AuthenticationFailed, match=r"options user, password and auth") as caught:
        await wrong.run(Command([*CMD, "echo", "x"]))
    assert "guessed wrong" not in str(caught.value)
    assert not caught.value.sent
    absent = make_transport(service, password={"file": "absent"}, **way)
    with pytest.raises(AuthenticationFailed, match="secret file absent"):
        await absent.run(Command([*CMD, "echo", "x"]))


async def test_an_account_that_may_not_use_WinRM(
    service: WsMan, make_transport: MakeTransport
) -> None:
    service.faults["Create"] = "fault 5"
    with pytest.raises(AuthenticationFailed, match=r"Access is denied.*Remote Management Users"):
        await make_transport(service).run(Command([*CMD, "echo", "x"]))


async def test_a_mechanism_that_is_not_there(
    make_service: MakeService, make_transport: MakeTransport
) -> None:
    basic_only = make_service(mechanisms=("Basic",))
    with pytest.raises(AuthenticationFailed, match="option"):
        await make_transport(basic_only).run(Command([*CMD, "echo", "x"]))


async def test_certificates_are_believed_by_fingerprint_or_authority(
    make_service: MakeService, make_transport: MakeTransport, issuer: Authority, tmp_path: Path
) -> None:
    service = make_service(tls=issuer.server_context("127.0.0.1"))
    echo = Command([*CMD, "echo", "x"])
    with pytest.raises(HostKeyUnknown, match=r"set option 'fingerprint'.*or.*option 'ca'") as shown:
        await make_transport(service, tls=True).run(echo)
    assert not shown.value.sent
    fingerprint = str(shown.value).partition("SHA-256 ")[2].partition(",")[0]
    pinned = {"tls": True, "fingerprint": fingerprint}
    assert (await make_transport(service, **pinned).run(echo)).stdout == b"x\r\n"
    (tmp_path / "secrets" / "ca").write_text(issuer.ca_file.read_text())
    both = {**pinned, "fingerprint": fingerprint.lower().replace(":", ""), "ca": {"file": "ca"}}
    assert (await make_transport(service, **both).run(echo)).stdout == b"x\r\n"
    (tmp_path / "secrets" / "nonsense").write_text("no certificate")
    with pytest.raises(AuthenticationFailed, match="option 'ca'"):
        await make_transport(service, tls=True, ca={"file": "nonsense"}).run(echo)


async def test_G3_a_changed_certificate_is_never_accepted(
    make_service: MakeService, make_transport: MakeTransport, issuer: Authority, tmp_path: Path
) -> None:
    service = make_service(tls=issuer.server_context("127.0.0.1"))
    (tmp_path / "secrets" / "ca").write_text(issuer.ca_file.read_text())
    wrong = {"tls": True, "fingerprint": digest(b"another"), "ca": {"file": "ca"}}
    with pytest.raises(HostKeyChanged, match=r"somebody may be in between") as caught:
        await make_transport(service, **wrong).run(Command([*CMD, "echo", "x"]))
    assert not caught.value.sent
    assert service.bodies == []


async def test_a_certificate_for_another_name_is_not_believed(
    make_service: MakeService, make_transport: MakeTransport, issuer: Authority, tmp_path: Path
) -> None:
    service = make_service(tls=issuer.server_context("somebody.else"))
    (tmp_path / "secrets" / "ca").write_text(issuer.ca_file.read_text())
    with pytest.raises(HostKeyUnknown, match=r"IP address mismatch"):
        await make_transport(service, tls=True, ca={"file": "ca"}).run(Command([*CMD, "echo"]))


@pytest.mark.parametrize(
    ("fault", "says"),
    [("404", r"404.*options port and tls"), ("500", "500"), ("garbage", "not as WinRM does")],
)
async def test_whoever_answers_and_is_no_WinRM(
    service: WsMan, make_transport: MakeTransport, fault: str, says: str
) -> None:
    service.faults["Create"] = fault
    with pytest.raises(Refused, match=says) as caught:
        await make_transport(service).run(Command([*CMD, "echo", "x"]))
    assert not caught.value.sent


async def test_plain_HTTP_where_TLS_was_expected(
    service: WsMan, make_transport: MakeTransport
) -> None:
    with pytest.raises(Unreachable, match=r"no TLS.*options port and tls"):
        await make_transport(service, tls=True).run(Command([*CMD, "echo", "x"]))
