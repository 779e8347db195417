"""The agent as a service, driven by Windows' own service manager."""

import subprocess
import sys
import winreg

import pywintypes  # finds the libraries of the others
import win32service
import win32serviceutil

DOES_NOT_EXIST = 1060
AGENT = [sys.executable, "-m", "hostler_agent", "service"]


def command(*arguments):
    """`hostler-agent service ...`"""
    done = subprocess.run([*AGENT, *arguments], capture_output=True, text=True, check=False)
    return {"code": done.returncode, "said": done.stdout + done.stderr}


def configuration(name):
    manager = win32service.OpenSCManager(None, None, win32service.SC_MANAGER_CONNECT)
    handle = win32service.OpenService(manager, name, win32service.SERVICE_QUERY_CONFIG)
    found = win32service.QueryServiceConfig(handle)
    return {"start": found[1], "command": found[3], "account": found[7], "shown": found[8]}


def make_hasty(name):
    """Has it run `hasty` instead."""
    known = configuration(name)["command"]
    changed = known.replace("-m hostler_agent service run", "-m hasty")
    manager = win32service.OpenSCManager(None, None, win32service.SC_MANAGER_CONNECT)
    handle = win32service.OpenService(manager, name, win32service.SERVICE_CHANGE_CONFIG)
    keep = win32service.SERVICE_NO_CHANGE
    win32service.ChangeServiceConfig(
        handle, keep, keep, keep, changed, None, 0, None, None, None, None
    )
    return changed != known


def start(name):
    win32serviceutil.StartService(name)
    win32serviceutil.WaitForServiceStatus(name, win32service.SERVICE_RUNNING, 60)


def stop(name):
    """Asks it to stop, and returns at once."""
    return win32serviceutil.StopService(name)[1]


def stopped(name):
    win32serviceutil.WaitForServiceStatus(name, win32service.SERVICE_STOPPED, 60)
    return win32serviceutil.QueryServiceStatus(name)[3]


def exists(name):
    try:
        return win32serviceutil.QueryServiceStatus(name)[1]
    except pywintypes.error as error:
        return error.winerror


def create(name, command):
    """A service that was made and not started."""
    manager = win32service.OpenSCManager(None, None, win32service.SC_MANAGER_CREATE_SERVICE)
    win32service.CreateService(
        manager,
        name,
        name,
        win32service.SERVICE_ALL_ACCESS,
        win32service.SERVICE_WIN32_OWN_PROCESS,
        win32service.SERVICE_DEMAND_START,
        win32service.SERVICE_ERROR_NORMAL,
        command,
        None,
        0,
        None,
        None,
        None,
    )


def commands():
    """Of all services that are ours by their names."""
    path = r"SYSTEM\CurrentControlSet\Services"
    found = []
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as services:
        for number in range(winreg.QueryInfoKey(services)[0]):
            name = winreg.EnumKey(services, number)
            if name.lower().startswith("hostler-"):
                with winreg.OpenKey(services, name) as service:
                    found.append(winreg.QueryValueEx(service, "ImagePath")[0])
    return found


def hold(name, state, is_trial):
    """What Ansible's win_service does; whether it is `changed`, `same` or `missing`."""
    now = exists(name)
    is_there, runs = now != DOES_NOT_EXIST, now == win32service.SERVICE_RUNNING
    if not is_there:
        return "same" if state == "absent" else "missing"
    if (state, runs) in (("started", True), ("stopped", False)):
        return "same"
    if is_trial:
        return "changed"
    if runs:
        stop(name)
        stopped(name)
    if state in ("started", "restarted"):
        start(name)
    if state == "absent":
        win32serviceutil.RemoveService(name)
    return "changed"
