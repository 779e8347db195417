from __future__ import annotations

from typing import Any

import pytest

from hostler_agent.wire import codec
from hostler_agent.wire.errors import CredentialsError, ProtocolError
from hostler_agent.wire.extension import (
    AgentReport,
    CommandLimits,
    CommandReport,
    CommandTerms,
    Handshake,
    HubSettings,
    Output,
    Receipt,
    Survivor,
)
from hostler_agent.wire.limits import TO_HUB

HANDSHAKE = Handshake("w1", "token", "s" * 43, "01JABCDEFGHJKMNPQRSTVWXYZ0", 7)
REPORT = AgentReport("boot", "proc", (CommandReport("c1", "running"),), {"os_id": "debian"})
RECEIPT = Receipt(
    "killed", None, "cgroup2", 3, 1024, 0.5, (Survivor(9, "x"),), ("stdout",), 2, "why"
)


def over_the_wire(mapping: dict[str, Any]) -> dict[str, Any]:
    return codec.decode(codec.encode(mapping), TO_HUB)


@pytest.mark.parametrize("handshake", [HANDSHAKE, Handshake("w1", "p"), Handshake("w", "p", "s")])
def test_a_handshake_round_trips(handshake: Handshake) -> None:
    assert Handshake.parse(handshake.headers()) == handshake


def test_a_stock_workers_handshake_has_no_headers_of_ours() -> None:
    assert set(Handshake("w1", "p").headers()) == {"Authorization"}


def test_a_handshake_shows_no_secret() -> None:
    assert "token" not in repr(HANDSHAKE)
    assert "sss" not in repr(HANDSHAKE)


@pytest.mark.parametrize("epoch", ["", "-1", "1.0", "x", "٣", "9" * 5000])
def test_an_epoch_that_is_no_number_is_refused(epoch: str) -> None:
    with pytest.raises(CredentialsError, match="Hostler-Epoch"):
        Handshake.parse({**HANDSHAKE.headers(), "Hostler-Epoch": epoch})


def test_a_handshake_without_credentials_is_refused() -> None:
    with pytest.raises(CredentialsError, match="no credentials"):
        Handshake.parse({})


def test_an_agents_report_round_trips() -> None:
    assert AgentReport.parse(over_the_wire({"hostler": REPORT.body()})) == REPORT


def test_a_stock_workers_info_has_no_report() -> None:
    assert AgentReport.parse({"version": "4.3.0"}) is None


@pytest.mark.parametrize(
    "change",
    [
        {"process": None},
        {"version": "1"},
        {"commands": {}},
        {"commands": ["c1"]},
        {"commands": [{"command_id": 1, "state": "running"}]},
        {"facts": []},
    ],
)
def test_a_bad_report_is_a_protocol_error(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="get_worker_info"):
        AgentReport.parse({"hostler": {**REPORT.body(), **change}})


def test_the_hubs_settings_round_trip() -> None:
    settings = HubSettings(300, ("c1", "c2"), 5, "01JABCDEFGHJKMNPQRSTVWXYZ0", 7)
    assert HubSettings.parse(over_the_wire(settings.body())) == settings


def test_the_hubs_settings_have_defaults() -> None:
    settings = HubSettings.parse({"lease_ttl_s": 300, "resume": []})
    assert settings == HubSettings(300, (), 10.0, None, None)


@pytest.mark.parametrize("change", [{"lease_ttl_s": None}, {"resume": [1]}, {"resume": "c1"}])
def test_bad_settings_are_a_protocol_error(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        HubSettings.parse({"lease_ttl_s": 300, "resume": [], **change})


@pytest.mark.parametrize(
    "terms",
    [
        CommandTerms("lease", 3, raw=False),
        CommandTerms("lease", 3, limits=CommandLimits(2**30, 50, 25), batch_files=True),
        CommandTerms("lease", 3, limits=CommandLimits(processes=1)),
    ],
)
def test_a_commands_terms_round_trip(terms: CommandTerms) -> None:
    assert CommandTerms.parse(over_the_wire({"hostler": terms.body()})) == terms


def test_terms_say_nothing_of_what_is_not_asked_for() -> None:
    assert CommandTerms("lease", 3).body() == {"lease": "lease", "epoch": 3, "raw": True}


@pytest.mark.parametrize("limits", [{"memory_bytes": 0}, {"processes": "5"}, {"cpu_percent": 0.5}])
def test_bad_limits_are_a_protocol_error(limits: dict[str, Any]) -> None:
    terms = {"lease": "lease", "epoch": 3, "raw": True, "limits": limits}
    with pytest.raises(ProtocolError, match=r"hostler\.limits"):
        CommandTerms.parse({"hostler": terms})


def test_a_stock_masters_command_has_no_terms() -> None:
    assert CommandTerms.parse({"command": "true"}) is None


def test_output_keeps_its_bytes() -> None:
    output = Output("stdout", 4096, b"\xff\0\r\n")
    name, value = over_the_wire({"args": [output.pair()]})["args"][0]
    assert (name, Output.parse(value)) == ("output", output)


@pytest.mark.parametrize("change", [{"offset": -1}, {"data": "text"}, {"stream": None}])
def test_bad_output_is_a_protocol_error(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match=r"update\.output"):
        Output.parse({**Output("stdout", 0, b"").pair()[1], **change})


def test_a_receipt_round_trips() -> None:
    name, value = over_the_wire({"args": [RECEIPT.pair()]})["args"][0]
    assert (name, Receipt.parse(value)) == ("receipt", RECEIPT)


@pytest.mark.parametrize(
    "change", [{"survivors": [1]}, {"survivors": [{"pid": "1", "name": "x"}]}, {"exit_code": "0"}]
)
def test_a_bad_receipt_is_a_protocol_error(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match=r"update\.receipt"):
        Receipt.parse({**RECEIPT.pair()[1], **change})
