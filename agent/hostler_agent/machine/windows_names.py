r"""Names that mean more than a name on Windows: devices, streams, and what the system drops.

`CON` is the console in every directory, `x:y` a hidden stream of the file x, and blanks and dots at
a name's end vanish, so that another file is written than was named
(https://learn.microsoft.com/windows/win32/fileio/naming-a-file).
"""

from __future__ import annotations

import errno
import ntpath
import re
from typing import Optional

_DEVICE = re.compile(
    "(con|prn|aux|nul|clock\\$|conin\\$|conout\\$|(com|lpt)[0-9\xb9\xb2\xb3])\\s*(\\.|$)",
    re.IGNORECASE,
)
_CHARACTERS = re.compile('[\0-\x1f<>:"|?*]')


def refuse_new_name(path: str) -> None:
    """Raise OSError if a part of a path, of a file or directory to make, is no plain name."""
    drive, rest = ntpath.splitdrive(path)
    if drive[1:2] == ":" and rest[:1] not in ("", "\\", "/"):
        raise OSError(errno.EINVAL, "it is relative to a drive; give the whole path", path)
    for part in re.split(r"[\\/]", rest):
        why = _why_not(part)
        if why is not None:
            raise OSError(errno.EINVAL, f"Windows takes {part!a} for more than a name: {why}", path)


def _why_not(name: str) -> Optional[str]:
    if name in ("", ".", ".."):
        return None
    if _DEVICE.match(name):
        return "it is a device"
    if ":" in name:
        return "what follows the colon is a stream of the file"
    if _CHARACTERS.search(name):
        return "it has a character that no name may have"
    if name[-1] in ". ":
        return "dots and blanks at its end are dropped"
    return None
