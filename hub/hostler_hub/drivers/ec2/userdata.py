"""The user-data of a new instance: it fetches the agent by its digest, starts it, and switches the
machine off at its end.

User-data can be read by every process of the instance, and by everyone who may describe it. So the
token in it works once, for the first session that presents it; a second session with it ends the
instance.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SIZE_BYTES = 16 * 1024  # EC2's limit, before base64

_LINUX = """#!/bin/sh
# Started by a Hostler hub.
set -eu
umask 077
home=/var/lib/hostler/{instance}
for other in /var/lib/hostler/*; do  # of a machine that was kept: its last instance's
    [ "$other" = "$home" ] || rm -rf "$other"
done
mkdir -p "$home/work"
cd "$home"
base64 -d > agent.json <<'END'
{config}
END
base64 -d > token <<'END'
{token}
END
{authorities}{python} - {archive_url} {sha256} agent.pyz {ca} <<'END'
import hashlib, ssl, sys, time, urllib.request
url, digest, path, *ca = sys.argv[1:]
context = ssl.create_default_context(cafile=ca[0] if ca else None)
for pause in (1, 2, 4, 8, 16, 32, 60, 60, 60, 0):
    try:
        data = urllib.request.urlopen(url, timeout=60, context=context).read()
        if hashlib.sha256(data).hexdigest() == digest:
            break
        print("hostler: the agent's archive has another digest", flush=True)
    except OSError as error:
        print("hostler: cannot fetch the agent:", error, flush=True)
    time.sleep(pause)
else:
    sys.exit("hostler: no agent, giving up")
with open(path, "wb") as file:
    file.write(data)
END
run="{python} $home/agent.pyz run --config $home/agent.json --mark {mark}"
if [ -d /run/systemd/system ] && command -v systemd-run >/dev/null; then
    systemd-run --unit hostler-agent --property Delegate=yes --property OOMPolicy=continue \\
        --property StandardOutput=journal+console --setenv HOME=/root $run
else
    HOME=/root nohup $run >> agent.log 2>&1 < /dev/null &
fi
"""

# cloud-init runs a script at an instance's first boot only, unless it is told otherwise; a part of
# the same name replaces that of the last boot.
_AT_EVERY_BOOT = """Content-Type: multipart/mixed; boundary="hostler"
MIME-Version: 1.0

--hostler
Content-Type: text/cloud-config; charset="us-ascii"
MIME-Version: 1.0
Content-Transfer-Encoding: 7bit
Content-Disposition: attachment; filename="hostler.cfg"

#cloud-config
cloud_final_modules:
- [scripts-user, always]

--hostler
Content-Type: text/x-shellscript; charset="us-ascii"
MIME-Version: 1.0
Content-Transfer-Encoding: 7bit
Content-Disposition: attachment; filename="hostler.sh"

{script}
--hostler--
"""

_WINDOWS = """<powershell>
# Started by a Hostler hub.
$ErrorActionPreference = 'Stop'
$home_ = 'C:\\ProgramData\\Hostler\\{instance}'
New-Item -ItemType Directory -Force -Path "$home_\\work" | Out-Null
$others = Get-ChildItem 'C:\\ProgramData\\Hostler' | Where-Object FullName -ne $home_
$others | Remove-Item -Recurse -Force
icacls $home_ /inheritance:r /grant 'SYSTEM:(OI)(CI)F' 'Administrators:(OI)(CI)F' | Out-Null
[IO.File]::WriteAllBytes("$home_\\agent.json", [Convert]::FromBase64String('{config}'))
[IO.File]::WriteAllBytes("$home_\\token", [Convert]::FromBase64String('{token}'))
{authorities}[Net.ServicePointManager]::SecurityProtocol = [Net.SecurityProtocolType]::Tls12
$fetched = $false
foreach ($pause in 1, 2, 4, 8, 16, 32, 60, 60, 60, 0) {{
    try {{
        Invoke-WebRequest -UseBasicParsing -Uri '{archive_url}' -OutFile "$home_\\agent.pyz"
        $fetched = (Get-FileHash -Algorithm SHA256 "$home_\\agent.pyz").Hash -eq '{sha256}'
        if ($fetched) {{ break }}
        Write-Output "hostler: the agent's archive has another digest"
    }} catch {{ Write-Output "hostler: cannot fetch the agent: $_" }}
    Start-Sleep -Seconds $pause
}}
if (-not $fetched) {{ throw 'hostler: no agent, giving up' }}
$run = '"' + $home_ + '\\agent.pyz" run --config "' + $home_ + '\\agent.json" --mark {mark}'
$action = New-ScheduledTaskAction -Execute '{python}' -Argument $run -WorkingDirectory $home_
$settings = New-ScheduledTaskSettingsSet -ExecutionTimeLimit 0 -AllowStartIfOnBatteries
$task = @{{ TaskName = 'hostler-agent'; User = 'SYSTEM'; Action = $action; Settings = $settings }}
Register-ScheduledTask @task -Force
Start-ScheduledTask -TaskName 'hostler-agent'
</powershell>
"""


@dataclass(frozen=True, slots=True)
class Boot:
    """The values that go into an instance's user-data. ``authorities``: PEM to trust instead of the
    system's.

    ``agent_config`` are keys of the agent's configuration that the worker's definition sets.
    ``starts_again``: the hub stops the machine at the instance's end and may boot it again.
    """

    worker: str
    instance: str
    epoch: int
    token: str
    mark: str
    connect_url: str
    archive_url: str
    sha256: str
    python: str
    orphan_timeout_s: int
    insecure: bool
    is_spot: bool
    agent_config: Mapping[str, Any] = field(default_factory=dict)
    authorities: bytes | None = None
    starts_again: bool = False


def linux(boot: Boot) -> str:
    """The user-data as a script for cloud-init."""
    ca = "ca.pem" if boot.authorities else ""
    authorities = f"base64 -d > ca.pem <<'END'\n{_wrapped(boot.authorities)}\nEND\n" if ca else ""
    script = _LINUX.format(**_fields(boot, wrap=True), authorities=authorities, ca=ca)
    return _AT_EVERY_BOOT.format(script=script) if boot.starts_again else script


def windows(boot: Boot) -> str:
    """The user-data as a script for EC2Launch, which adds a private authority to the machine's own
    store.
    """
    authorities = ""
    if boot.authorities:
        data = base64.b64encode(boot.authorities).decode()
        authorities = (
            '[IO.File]::WriteAllBytes("$home_\\ca.pem", [Convert]::FromBase64String(\''
            f"{data}'))\n"
            'Import-Certificate -FilePath "$home_\\ca.pem" '
            "-CertStoreLocation Cert:\\LocalMachine\\Root | Out-Null\n"
        )
    fields = {**_fields(boot, wrap=False), "python": boot.python.replace("'", "''")}
    script = _WINDOWS.format(**fields, authorities=authorities)
    return f"{script}<persist>true</persist>\n" if boot.starts_again else script


def _fields(boot: Boot, *, wrap: bool) -> Mapping[str, Any]:
    encode = _wrapped if wrap else _plain
    return {
        "instance": boot.instance,
        "config": encode(json.dumps(_config(boot)).encode()),
        "token": encode(boot.token.encode()),
        "python": boot.python,
        "archive_url": boot.archive_url,
        "sha256": boot.sha256,
        "mark": boot.mark,
    }


def _config(boot: Boot) -> dict[str, Any]:
    return {
        "hub": boot.connect_url,
        "name": boot.worker,
        "instance": boot.instance,
        "epoch": boot.epoch,
        "workdir": "work",
        "token_file": "token",
        "ca_file": "ca.pem" if boot.authorities else None,
        "insecure": boot.insecure or None,
        "orphan_timeout_s": boot.orphan_timeout_s,
        # A power-off from inside terminates the machine; the hub, if it lives, stops it instead.
        "at_end": "poweroff_if_orphaned" if boot.starts_again else "poweroff",
        "interruptions": "ec2" if boot.is_spot else None,
        **boot.agent_config,
    }


def _plain(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _wrapped(data: bytes | None) -> str:
    return base64.encodebytes(data or b"").decode().strip()
