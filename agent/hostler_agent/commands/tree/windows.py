"""Opens files beneath a directory. Links and junctions are followed as long as they stay in it.

Windows opens no name relative to a directory's handle through the C runtime. So a file is opened as
its path says, and then the system is asked for the path of what was opened: whatever was exchanged
meanwhile, nothing of a file elsewhere is read.
"""

from __future__ import annotations

import msvcrt
import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO, Optional

from hostler_agent import machine
from hostler_agent.commands.tree.errors import leads_out, neither
from hostler_agent.win32 import api

assert sys.platform == "win32"


class Tree:
    """The files beneath `root`, a directory's absolute path. Its methods block and raise OSError;
    close() it at the end.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._final = _final_path_of_directory(root).rstrip("\\") + "\\"

    def close(self) -> None:
        """Do nothing: nothing is held open."""

    def open(self, path: str) -> Optional[BinaryIO]:
        """Open the regular file at `path`, which is relative to the tree; None for a directory."""
        whole = os.path.join(self._root, path)  # noqa: PTH118 - Path would drop a last slash
        if Path(whole).is_dir():
            self._check(_final_path_of_directory(whole), path)
            return None
        descriptor = os.open(whole, machine.READ_FLAGS)
        try:
            self._check_file(descriptor, path)
        except OSError:
            os.close(descriptor)
            raise
        return open(descriptor, "rb", buffering=0)

    def _check_file(self, descriptor: int, path: str) -> None:
        self._check(api.final_path(msvcrt.get_osfhandle(descriptor)), path)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise neither(path)

    def names(self, path: str) -> list[str]:
        """The names in the directory at `path`."""
        whole = os.path.join(self._root, path)  # noqa: PTH118
        self._check(_final_path_of_directory(whole), path)
        return os.listdir(whole)  # noqa: PTH208

    def _check(self, final: str, path: str) -> None:
        if not f"{final}\\".casefold().startswith(self._final.casefold()):
            raise leads_out(path, self._root)


def _final_path_of_directory(path: str) -> str:
    share = api.SHARE_READ | api.SHARE_WRITE | api.SHARE_DELETE
    handle = api.create_file(path, api.FILE_READ_ATTRIBUTES, share, api.FILE_FLAG_BACKUP_SEMANTICS)
    try:
        return api.final_path(handle.value)
    finally:
        handle.close()
