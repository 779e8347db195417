"""Scheduled tasks, made with Windows' own schtasks.exe: their processes outlive the login.

A task runs as the user who logged in, without a stored password (S4U). It has no trigger, so that
only this module starts it, and no time limit, which would be three days by default.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

assert sys.platform == "win32"

from hostler_agent.instances.errors import SYSTEM, HostError
from hostler_agent.instances.launch import Start
from hostler_agent.instances.windows import programs

FOLDER = "Hostler"
DEADLINE_S = 20.0
DEFINITION = "task.xml"
_NAMESPACE = "http://schemas.microsoft.com/windows/2004/02/mit/task"
# Normal; a task's own default is below it, for the disk as well.
_PRIORITY = 5


def arguments(wanted: Start) -> list[str]:
    """Python's arguments to launch the agent. They do not contain the token."""
    launch = ["host", "launch", str(wanted.directory), *wanted.mark.arguments()]
    return ["-I", "-S", str(wanted.program.path), *launch]


def name_of(instance: str) -> str:
    return f"\\{FOLDER}\\{instance}"


def definition(wanted: Start, python: str, user: str) -> str:
    """The definition of the task, as XML."""
    given = escape(subprocess.list2cmdline(arguments(wanted)))
    return f"""<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.2" xmlns="{_NAMESPACE}">
  <RegistrationInfo>
    <Description>Agent of Hostler {wanted.mark}</Description>
  </RegistrationInfo>
  <Principals>
    <Principal id="Author">
      <UserId>{escape(user)}</UserId>
      <LogonType>S4U</LogonType>
      <RunLevel>HighestAvailable</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <Priority>{_PRIORITY}</Priority>
    <Hidden>true</Hidden>
  </Settings>
  <Actions Context="Author">
    <Exec>
      <Command>{escape(python)}</Command>
      <Arguments>{given}</Arguments>
      <WorkingDirectory>{escape(str(wanted.directory))}</WorkingDirectory>
    </Exec>
  </Actions>
</Task>
"""


def start(wanted: Start, user: str) -> None:
    """Make the task and run it. Raises HostError with schtasks' words."""
    file = wanted.directory / DEFINITION
    # schtasks wants UTF-16 with its mark.
    file.write_bytes(definition(wanted, sys.executable, user).encode("utf-16"))
    name = name_of(wanted.mark.instance)
    _ask("/Create", "/TN", name, "/XML", str(file), "/F")
    _ask("/Run", "/TN", name)


def remove(instance: str) -> None:
    """Delete the task, so that nothing starts it any more. A missing one is not an error."""
    for verb in (("/End",), ("/Delete", "/F")):
        _call([verb[0], "/TN", name_of(instance), *verb[1:]])


def _ask(*words: str) -> None:
    status, said = _call(words)
    if status != 0:
        raise HostError(
            SYSTEM, f"option 'start': schtasks {words[0]} failed with status {status}: {said}"
        )


def _call(words: Sequence[str]) -> tuple[int, str]:
    program = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "schtasks.exe")
    try:
        return programs.ask([str(program), *words], DEADLINE_S)
    except subprocess.TimeoutExpired as error:
        raise HostError(SYSTEM, f"schtasks {words[0]} did not end in {DEADLINE_S:g} s") from error
