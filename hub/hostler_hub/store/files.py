"""The files of an SQLite database: made for their owner alone, and known again by their inodes.

Nothing here opens a file that SQLite may have open. POSIX ties locks to the process and the file:
closing any descriptor of a file drops all locks that the process holds on it, also those that
SQLite took through a descriptor of its own. SQLite then deletes the write-ahead log under us as
soon as another process closes the database (https://www.sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_SUFFIXES = ("", "-wal", "-shm")


def make_private(database: Path) -> None:
    """Create the database's file, readable by its owner alone; take others' rights from one that
    exists. SQLite gives the log and its index the mode of the database. Raises OSError.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    resolved = os.path.realpath(database)  # O_EXCL follows no link, SQLite does
    try:
        os.close(os.open(resolved, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        for suffix in _SUFFIXES:
            _take_others_rights(Path(resolved + suffix))


def _take_others_rights(path: Path) -> None:
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) and mode & 0o077:
            path.chmod(stat.S_IMODE(mode) & ~0o077)
    except FileNotFoundError:
        return


class OpenFiles:
    """The database, its log and the log's index, as they are while SQLite has them open.

    Made once a connection has read, which creates the log and its index. As long as that
    connection is open, SQLite deletes neither.
    """

    def __init__(self, database: str) -> None:
        """`database` is the file's path in SQLite's own words (PRAGMA database_list)."""
        paths = [Path(database + suffix) for suffix in _SUFFIXES]
        self._known = {path: known for path in paths if (known := _identity(path)) is not None}

    def difference(self) -> str | None:
        """What another program has done to one of the files since this object was made; None if
        nothing.
        """
        for path, known in self._known.items():
            try:
                now = _identity(path)
            except OSError as error:
                return f"{path} can no longer be found: {error.strerror}"
            if now != known:
                return f"{path} was {'deleted' if now is None else 'replaced by another file'}"
        return None


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of the file at `path`, None where there is none."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
