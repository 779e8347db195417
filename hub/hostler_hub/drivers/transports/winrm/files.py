"""Programs for the Python of a Windows machine, which need neither PowerShell nor quoting.

A program is the first line of standard input, in Base64, and its input follows: so neither passes
through cmd.exe. File contents are in Base64 too, because it is not documented what WinRM does to
bytes on the way; a digest tells whether all of them arrived.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from hostler_hub.drivers.transports.contract import Command

LOADER = "import sys,base64;exec(base64.b64decode(sys.stdin.buffer.readline()))"

EXISTS, NO_ROOM, NOT_WHOLE, NO_FILE, TOO_LARGE = 95, 96, 97, 98, 99

PUT = r"""
import base64, ctypes, errno, hashlib, os, sys
path, size, digest = sys.argv[1], int(sys.argv[2]), sys.argv[3]
path = os.path.expanduser(path)
try:
    # Made by whoever writes it alone: what is replaced could be another's.
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
except OSError as error:
    sys.stderr.write("%s: %s" % (path, error.strerror))
    sys.exit(96 if error.errno == errno.ENOSPC else 95)
whole = False
try:
    if os.name == "nt":
        # Owner, system and administrators; nothing is inherited, and nothing is written before.
        api = ctypes.WinDLL("advapi32", use_last_error=True)
        found = ctypes.c_void_p()
        rights = "D:P(A;;FA;;;OW)(A;;FA;;;SY)(A;;FA;;;BA)"
        made = api.ConvertStringSecurityDescriptorToSecurityDescriptorW(
            rights, 1, ctypes.byref(found), None
        )
        if not made or not api.SetFileSecurityW(path, 4, found):
            raise ctypes.WinError(ctypes.get_last_error())
    content = base64.b64decode(sys.stdin.buffer.read())
    whole = len(content) == size and hashlib.sha256(content).hexdigest() == digest
    if whole:
        with open(number, "wb", closefd=False) as file:
            file.write(content)
            file.flush()
            os.fsync(number)
except OSError as error:
    sys.stderr.write("%s: %s" % (path, error.strerror))
    whole = None
finally:
    os.close(number)
    if not whole:
        os.unlink(path)
sys.exit(0 if whole else 96 if whole is None else 97)
"""

FETCH = r"""
import base64, os, sys
path, size = os.path.expanduser(sys.argv[1]), int(sys.argv[2])
try:
    with open(path, "rb") as file:
        content = file.read(size + 1)
except OSError as error:
    sys.stderr.write("%s: %s" % (path, error.strerror))
    sys.exit(98)
if len(content) > size:
    sys.exit(99)
sys.stdout.write(base64.b64encode(content).decode())
"""


def program(python: str, text: str, *arguments: str) -> tuple[list[str], bytes]:
    """The command line that runs the Python program `text`, and the beginning of its standard
    input.
    """
    head = base64.b64encode(text.encode()) + b"\n"
    return [python, "-I", "-S", "-c", LOADER, *arguments], head


def putting(python: str, path: str, content: bytes, deadline_s: float) -> Command:
    """The command that writes a file. It exits with EXISTS, NO_ROOM or NOT_WHOLE if that fails."""
    digest = hashlib.sha256(content).hexdigest()
    argv, head = program(python, PUT, path, str(len(content)), digest)
    return Command(argv, head + base64.b64encode(content), deadline_s)


def fetching(python: str, path: str, size_bytes: int, deadline_s: float) -> Command:
    """The command that prints a file. It exits with NO_FILE or TOO_LARGE if that fails."""
    argv, head = program(python, FETCH, path, str(size_bytes))
    return Command(argv, head, deadline_s, output_bytes=2 * size_bytes + 64 * 1024)


def content_of(printed: bytes) -> bytes:
    """Decode the file's content from the output of the command of `fetching`."""
    return base64.b64decode(printed)


def words(stderr: bytes, python: Sequence[str]) -> str:
    """The end of a failed program's standard error, for an error message."""
    said = stderr.decode("utf-8", "replace").strip()
    return said[-400:] or f"{python[0]} said nothing"
