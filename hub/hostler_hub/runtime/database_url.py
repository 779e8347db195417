"""URLs of SQLite files: `sqlite:///` and the file's path, percent-encoded, so that any path can be
one.

Only this module writes and reads them: releases of SQLAlchemy differ in whether they decode the
path.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote

_PREFIX = "sqlite:///"


def of_file(path: Path) -> str:
    """The URL of the database in this file, whatever characters are in its path."""
    return _PREFIX + quote(str(path))


def file_of(url: str) -> Path | None:
    """The file that the URL names; None where it names no file. Relative paths stay relative.

    A query (`?mode=ro`) is not part of the path; a `?` that is has been encoded.
    """
    path = unquote(url.removeprefix(_PREFIX).partition("?")[0])
    if not url.startswith(_PREFIX) or not path or path == ":memory:":
        return None
    return Path(path)
