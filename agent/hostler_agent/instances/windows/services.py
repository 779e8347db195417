"""Windows services that run one instance each: their processes outlive the login that made them.

A service is named after its instance; its command contains the mark, never the token. It is started
only by this module, and nothing restarts it. It runs as LOCAL SERVICE, which has few rights and no
password: an account of its own for each service would leave a profile behind with each instance.
LOCAL SERVICE may read the agent and change the instance's directory, which is also its home.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
import winreg
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

assert sys.platform == "win32"

from hostler_agent.instances.directories import Directories
from hostler_agent.instances.errors import NOT_PERMITTED, SURVIVES, SYSTEM, HostError
from hostler_agent.instances.launch import Start
from hostler_agent.instances.mark import OPTION as MARK_OPTION
from hostler_agent.instances.mark import Mark
from hostler_agent.instances.windows import programs
from hostler_agent.service import manager
from hostler_agent.win32 import api

OPTION = "--service"
ACCOUNT = "NT AUTHORITY\\LocalService"
_ACCOUNT_SID = "*S-1-5-19"  # the account's name is another in each language
DEADLINE_S = 20.0
_PAUSE_S = 0.05
_SERVICES = r"SYSTEM\CurrentControlSet\Services"
_NAME = re.compile(r"hostler-([0-9A-HJKMNP-TV-Z]{26})", re.IGNORECASE)
_MARK = re.compile(rf'host launch "?(.*?)"? {MARK_OPTION} (\S+) {OPTION}')


def name_of(instance: str) -> str:
    return f"hostler-{instance}"


def start(wanted: Start, arguments: Sequence[str]) -> None:
    """Make the service and start it; delete it if that fails. Raises OSError or HostError."""
    definition = _definition(wanted, arguments)
    _grant(wanted)
    with contextlib.closing(_made(wanted.mark.instance, definition)) as service:
        try:
            service.start()
        except OSError as error:
            service.delete()
            raise _refused("did not start", error) from error


def ended(instance: str) -> Optional[str]:
    """The reason why the service does not run; None while it runs."""
    service = manager.find(name_of(instance), to_change=False)
    if service is None:
        return "the service is gone"
    with contextlib.closing(service):
        status = service.status()
    if status.state != manager.STOPPED:
        return None
    return f"the service ended at once, with code {status.exit_code}"


def is_there(instance: str) -> bool:
    """Whether the instance has a service. Needs no rights at the service manager."""
    try:
        winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, f"{_SERVICES}\\{name_of(instance)}").Close()
    except FileNotFoundError:
        return False
    return True


def forbid(instance: str) -> None:
    """Delete the service, so that nothing starts it any more. A missing one is not an error. Raises
    OSError.
    """
    service = manager.find(name_of(instance))
    if service is not None:
        with contextlib.closing(service):
            service.delete()


def await_gone(instance: str, deadline: float) -> None:
    """Wait until the deletion of the service has taken effect. Raises OSError or HostError."""
    while True:
        service = manager.find(name_of(instance), to_change=False)
        if service is None:
            return
        with contextlib.closing(service):
            state = service.status().state
        if time.monotonic() >= deadline:
            text = f"service {name_of(instance)} stays, in state {state}; is it open in a console?"
            raise HostError(SURVIVES, text)
        time.sleep(_PAUSE_S)


def marked(directories: Directories, hub: str) -> Iterator[Mark]:
    """The marks of the hub's services whose instance directory is below `directories`, whether or
    not that still exists.
    """
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _SERVICES) as services:
        for name in _names(services):
            with contextlib.suppress(OSError), winreg.OpenKey(services, name) as service:
                command = str(winreg.QueryValueEx(service, "ImagePath")[0])
                found = _MARK.search(command)
                mark = Mark.parse(found[2]) if found else None
                if found and mark and mark.hub == hub and _is_in(directories, Path(found[1])):
                    yield mark


def _names(services: winreg.HKEYType) -> list[str]:
    """The names of the registered services that have the form of an agent's."""
    names = (winreg.EnumKey(services, number) for number in range(winreg.QueryInfoKey(services)[0]))
    return [name for name in names if _NAME.fullmatch(name)]


def _is_in(directories: Directories, directory: Path) -> bool:
    return str(directory.parent).lower() == str(directories.instances).lower()


def _definition(wanted: Start, arguments: Sequence[str]) -> manager.Definition:
    return manager.Definition(
        f"Hostler agent {wanted.mark}",
        subprocess.list2cmdline([sys.executable, *arguments, OPTION]),
        manager.DEMAND_START,
        ACCOUNT,
    )


def _made(instance: str, definition: manager.Definition) -> manager.Service:
    """Create the service, or redefine one that exists because an earlier start died before starting
    it. Raises HostError or OSError.
    """
    try:
        return manager.create(name_of(instance), definition)
    except OSError as error:
        if error.winerror != manager.ERROR_SERVICE_EXISTS:
            raise _refused("cannot be made", error) from error
    service = manager.find(name_of(instance))
    if service is None:
        raise HostError(SYSTEM, f"service {name_of(instance)} is just being removed")
    service.define(definition)
    return service


def _refused(what: str, error: OSError) -> HostError:
    kind, hint = SYSTEM, ""
    if error.winerror == api.ERROR_ACCESS_DENIED:
        kind = NOT_PERMITTED
        hint = (
            "; to make one takes an administrator, and LOCAL SERVICE must be able to read "
            f"{sys.executable}: install Python for all users"
        )
    return HostError(kind, f"option 'start': the service {what}: {error.strerror}{hint}")


def _grant(wanted: Start) -> None:
    """Let the service's account read the agent and change the instance's directory. Raises
    HostError.
    """
    instances = wanted.directory.parent
    for path in (instances.parent, instances, wanted.program.path.parent):
        _icacls(path, "(RX)")
    _icacls(wanted.program.path, "(OI)(CI)(RX)")
    _icacls(instances / f"{wanted.mark.instance}.lock", "(R)")
    _icacls(wanted.directory, "(OI)(CI)(M)", "/T")


def _icacls(path: Path, right: str, *options: str) -> None:
    program = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "icacls.exe")
    argv = [str(program), str(path), "/grant", f"{_ACCOUNT_SID}:{right}", *options, "/Q"]
    try:
        status, said = programs.ask(argv, DEADLINE_S)
    except subprocess.TimeoutExpired as error:
        raise HostError(SYSTEM, f"icacls {path} did not end in {DEADLINE_S:g} s") from error
    if status != 0:
        raise HostError(SYSTEM, f"icacls {path} failed with status {status}: {said}")
