"""Tar archives, as Python writes them."""

from __future__ import annotations

import io
import tarfile
from typing import Any

Entry = tuple[str, bytes | None]


def archive(*entries: Entry, format: int = tarfile.PAX_FORMAT, **fields: Any) -> bytes:
    """A tar of files (with data) and directories (None), as Python writes it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=format) as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            info.size, info.mtime = len(data or b""), 1234.5
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(data or b""))
    return made.getvalue()
