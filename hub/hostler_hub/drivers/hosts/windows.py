"""Calls the agent's verb `host` on a machine with Windows and Python.

The script that looks for the agent is Python and goes over standard input like the request
(`transports.winrm.files`), so that nothing has to be quoted for cmd.exe. It first prints that it
runs: the exit status of cmd.exe for a program that it cannot find is also used by many other
programs.
"""

from __future__ import annotations

from hostler_agent.instances import errors as host_errors
from hostler_hub.drivers.errors import HostFailed
from hostler_hub.drivers.hosts.remote import (
    NEVER_WAS,
    NO_AGENT,
    NO_DIRECTORY,
    OLD_PYTHON,
    RemoteHost,
    Request,
    last_output,
    too_old,
)
from hostler_hub.drivers.transports.contract import Command, CommandResult
from hostler_hub.drivers.transports.errors import NotWritten
from hostler_hub.drivers.transports.winrm import files

NO_PYTHON_THERE, NEVER_WAS_THERE = "no-python", "never-was"

_EXPAND = r"""
import os, sys
directory, agent, action, nonce = sys.argv[1:5]
instance = sys.argv[5] if action == "stop" else ""
sys.stdout.write("\n@hostler-here %s\n" % nonce)
sys.stdout.flush()
if sys.version_info < (3, 9):
    sys.stderr.write("%s is Python %d.%d" % ((sys.executable,) + sys.version_info[:2]))
    sys.exit(92)
root = os.path.abspath(os.path.expanduser(directory))
program = os.path.join(root, "agents", agent)
"""
_MAKE = r"""
def make(path):
    # Its owner's, the system's and the administrators' from the beginning.
    import ctypes
    if os.path.isdir(path):
        return
    if os.path.dirname(path) != path:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    class Attributes(ctypes.Structure):
        _fields_ = [("n", ctypes.c_uint32), ("d", ctypes.c_void_p), ("i", ctypes.c_int)]
    api, kernel = (ctypes.WinDLL(name, use_last_error=True) for name in ("advapi32", "kernel32"))
    given = Attributes(ctypes.sizeof(Attributes), None, 0)
    rights = "D:P(A;OICI;FA;;;OW)(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"
    where = ctypes.byref(given, Attributes.d.offset)
    if not api.ConvertStringSecurityDescriptorToSecurityDescriptorW(rights, 1, where, None):
        raise ctypes.WinError(ctypes.get_last_error())
    if not kernel.CreateDirectoryW(path, ctypes.byref(given)) and not os.path.isdir(path):
        raise ctypes.WinError(ctypes.get_last_error())

if not os.path.isdir(program):
    try:
        make(root)
        make(os.path.join(root, "agents"))
        if instance:
            # Where this agent is not it has started nothing; a start that arrives later finds that
            # it is over. The file is made or not, whoever else tries.
            make(os.path.join(root, "instances"))
            lock = os.path.join(root, "instances", instance + ".lock")
            try:
                with open(lock, "x") as file:
                    file.write("gone")
                sys.exit(93)
            except FileExistsError:
                pass
    except OSError as error:
        sys.stderr.write("%s: %s" % (root, error.strerror))
        sys.exit(94)
    sys.stdout.write("\n@hostler-at %s %s\n" % (nonce, root))
    sys.exit(90)
"""
_RUN = r"""
import runpy
sys.argv = [program, "host", action, "--reply", nonce]
runpy.run_path(program, run_name="__main__")
"""


class WindowsHost(RemoteHost):
    """A machine with Windows. All methods raise HostFailed and TransportError."""

    async def never_was(self, instance: str, error: HostFailed, deadline_s: float) -> bool:
        """Whether the instance was never started. Without Python it cannot have been, unless there
        was a Python before: then the instance's directory still exists.
        """
        if error.kind != NO_PYTHON_THERE:
            return error.kind == NEVER_WAS_THERE
        # Shells begin in the user's profile.
        directory = self._site.directory.removeprefix("~\\").removeprefix("~/")
        there = self._path(directory, "instances", instance)
        argv = ["cmd.exe", "/d", "/c", "dir", "/b", there.replace("/", "\\")]
        outcome = await self._transport.run(Command(argv, deadline_s=deadline_s))
        return outcome.status != 0

    async def _put(self, directory: str, name: str, content: bytes) -> None:
        try:
            await super()._put(directory, name, content)
        except NotWritten as error:
            text = f"cannot write the agent ({len(content)} bytes): {error.words}"
            raise HostFailed(text, kind=host_errors.DISK_FULL, ran=False) from error

    def _call_command(self, request: Request, nonce: str) -> tuple[list[str], bytes]:
        given = (
            self._site.directory,
            self._archive.sha256,
            request.action,
            nonce,
            request.instance,
        )
        return files.program(self._site.python, _EXPAND + _MAKE + _RUN, *given)

    def _install_command(self, archive: str, nonce: str) -> tuple[list[str], bytes]:
        given = (self._site.directory, archive, "install", nonce)
        return files.program(self._site.python, _EXPAND + _RUN, *given)

    def _path(self, directory: str, *names: str) -> str:
        return "\\".join((directory, *names))

    def _no_reply(self, outcome: CommandResult, nonce: str) -> HostFailed:
        python, why = self._site.python, last_output(outcome)
        words = f"exit status {outcome.status}" + (f": {why}" if why else "")
        if f"@hostler-here {nonce}".encode() not in outcome.stdout:
            text = (
                f"option 'python': {python!r} does not run there ({words}); install Python 3.9 or "
                "newer, or name its path"
            )
            return HostFailed(text, kind=NO_PYTHON_THERE, ran=False)
        ran = outcome.status not in (NO_AGENT, OLD_PYTHON, NO_DIRECTORY)
        if outcome.status == NEVER_WAS:
            return HostFailed("it never was", kind=NEVER_WAS_THERE, ran=ran)
        if outcome.status == OLD_PYTHON:
            return too_old(python, words, ran=ran)
        if outcome.status == NO_DIRECTORY:
            return HostFailed(f"option 'directory': {why}", ran=ran)
        return HostFailed(f"the machine did not answer as it should: {words}", ran=ran)
