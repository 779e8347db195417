"""The user-data of Windows instances, as text: no PowerShell is here to run it.

What is *not* executed by any test: the script itself, EC2Launch that runs it, the scheduled task it
registers. What it asks the agent to do (its configuration, its start as SYSTEM) is tested elsewhere
on a Windows Python under Wine (tests/windows).
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from hostler_agent.config import load
from hostler_hub.drivers.ec2 import userdata
from hostler_hub.runtime.ids import new_ulid

DIGEST = "0123456789abcdef" * 4
URL = f"https://hub.example.org/api/v1/agents/archive/{DIGEST}"
INSTANCE = new_ulid()


def script(**changes: Any) -> str:
    fields: dict[str, Any] = {
        "worker": "w",
        "instance": INSTANCE,
        "epoch": 3,
        "token": "s3cret",
        "mark": f"H:{INSTANCE}:3",
        "connect_url": "wss://hub.example.org/api/v1/agents/connect",
        "archive_url": URL,
        "sha256": DIGEST,
        "python": "C:\\Python311\\python.exe",
        "orphan_timeout_s": 1800,
        "insecure": False,
        "is_spot": True,
    }
    return userdata.windows(userdata.Boot(**{**fields, **changes}))


def lines_of(text: str) -> list[str]:
    assert text.startswith("<powershell>\n")
    assert text.endswith("\n</powershell>\n")
    return text.splitlines()[1:-1]


def written(text: str, name: str) -> bytes:
    """What the script writes to a file of the instance's directory."""
    pattern = re.escape(f'WriteAllBytes("$home_\\{name}", [Convert]::FromBase64String(\'')
    (data,) = re.findall(pattern + r"([A-Za-z0-9+/=]+)'\)\)", text)
    return base64.b64decode(data)


def test_strings_and_brackets_are_closed_on_every_line_and_in_all() -> None:
    depth = 0
    for line in lines_of(script(authorities=b"pem")):
        if line.startswith("#"):
            continue
        bare = re.sub(r"""'(?:[^']|'')*'|"[^"]*\"""", "", line)
        assert "'" not in bare, line
        assert '"' not in bare, line
        assert "{}" not in bare, "nothing was left out"
        depth += sum(map(bare.count, "({[")) - sum(map(bare.count, ")}]"))
        assert depth >= 0, line
    assert depth == 0


def test_its_steps_are_in_order_and_an_archive_of_another_digest_is_never_started() -> None:
    text = "\n".join(lines_of(script()))
    steps = [
        "$ErrorActionPreference = 'Stop'",
        f"$home_ = 'C:\\ProgramData\\Hostler\\{INSTANCE}'",
        "icacls $home_ /inheritance:r",  # before there is anything to read
        "\\agent.json",
        "\\token",
        "[Net.SecurityProtocolType]::Tls12",
        f"Invoke-WebRequest -UseBasicParsing -Uri '{URL}'",
        f"(Get-FileHash -Algorithm SHA256 \"$home_\\agent.pyz\").Hash -eq '{DIGEST}'",
        "if (-not $fetched) { throw",
        "New-ScheduledTaskAction -Execute 'C:\\Python311\\python.exe'",
        "Register-ScheduledTask",
        "Start-ScheduledTask -TaskName 'hostler-agent'",
    ]
    places = [text.index(step) for step in steps]
    assert places == sorted(places)
    assert "-ExecutionTimeLimit 0" in text, "a task ends after three days if nobody says so"
    assert "User = 'SYSTEM'" in text


def test_the_agent_understands_what_it_is_told(tmp_path: Path) -> None:
    text = script(authorities=b"pem")
    for name in ("agent.json", "token", "ca.pem"):
        (tmp_path / name).write_bytes(written(text, name))
        (tmp_path / name).chmod(0o600)
    config = load(tmp_path / "agent.json")
    assert (config.instance, config.epoch, config.password) == (INSTANCE, 3, "s3cret")
    assert (config.at_end, config.interruptions) == ("poweroff", "ec2")
    assert config.ca_file == tmp_path / "ca.pem"
    assert json.loads(written(text, "agent.json"))["hub"].startswith("wss://")


def test_the_token_and_the_start_line_carry_no_secret() -> None:
    text = script()
    assert "s3cret" not in text
    (run,) = (line for line in text.splitlines() if line.startswith("$run"))
    assert f"--mark H:{INSTANCE}:3'" in run
    assert "token" not in run


@pytest.mark.parametrize("python", ["C:\\Program Files\\Python\\python.exe", "C:\\o'b\\python.exe"])
def test_a_path_is_one_word_whatever_it_holds(python: str) -> None:
    (line,) = (each for each in script(python=python).splitlines() if "-Execute" in each)
    (word,) = re.findall(r"-Execute '((?:[^']|'')*)' -Argument", line)
    assert word.replace("''", "'") == python


def test_private_authorities_are_trusted_by_the_machine_before_the_download() -> None:
    text = script(authorities=b"-----BEGIN CERTIFICATE-----")
    assert text.index("Import-Certificate") < text.index("Invoke-WebRequest")
    assert "Import-Certificate" not in script()


def test_it_fits_into_what_ec2_takes() -> None:
    assert len(script(authorities=b"x" * 4000).encode()) < userdata.SIZE_BYTES


def test_a_machine_that_boots_again_runs_it_again_and_forgets_its_last_instance_first() -> None:
    text = script(starts_again=True)
    assert text.endswith("</powershell>\n<persist>true</persist>\n")
    assert "<persist>" not in script()
    steps = [
        "Get-ChildItem 'C:\\ProgramData\\Hostler' | Where-Object FullName -ne $home_",
        "Remove-Item -Recurse -Force",
        "\\agent.json",
    ]
    places = [text.index(step) for step in steps]
    assert places == sorted(places)
    config = json.loads(written(text, "agent.json"))
    assert config["at_end"] == "poweroff_if_orphaned"
