# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files to the hub for builds to come, and files from it that builds have made."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile

from ansible_collections.hostler.fleet.plugins.module_utils.errors import UnexpectedAnswer

PIECE_BYTES = 1024 * 1024
PAGE = 500

# What no file can be called there; devices also with an extension.
_MORE_ON_WINDOWS = re.compile(
    r"^(con|prn|aux|nul|clock\$|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\.|$)"
    r'|[\x00-\x1f<>:"|?*\\]|[. ]$',
    re.IGNORECASE,
)


def store(client, path):
    """Upload the file at path; returns its sha256. Raises OSError and HubError."""
    digest = digest_of(path)
    with open(path, "rb") as file:
        stored = client.post_file("/files", file, os.fstat(file.fileno()).st_size)
    if stored["sha256"] != digest:
        raise UnexpectedAnswer("%s was changed on its way to the hub, or meanwhile" % path)
    return digest


def digest_of(path):
    """The sha256 of a file, or None when there is none."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for piece in iter(lambda: file.read(PIECE_BYTES), b""):
                digest.update(piece)
    except FileNotFoundError:
        return None
    return digest.hexdigest()


def list_all(client, build_id):
    """All artifacts of a build, by path."""
    items, after = [], None
    while True:
        query = {"limit": PAGE} if after is None else {"limit": PAGE, "after": after}
        page = client.get("/builds/%s/artifacts" % build_id, query)
        items += page["items"]
        after = page["next"]
        if after is None:
            return items


def fetch_all(module, client, build_id, dest):
    """Write a build's artifacts beneath the directory dest; returns them as the hub tells them.

    A file that has the right content already is left alone; another is replaced when the new one
    is whole. Raises OSError and HubError.
    """
    items = list_all(client, build_id)
    for item in items:
        path = place(dest, item["path"])
        if digest_of(path) != item["sha256"]:
            fetch(module, client, "/builds/%s/artifacts/" % build_id, item, path)
    return items


def place(dest, name, is_windows=os.name == "nt"):
    """Where the artifact belongs; the hub sends no name that leads elsewhere, and here is why.

    A name may be whatever POSIX allows. Windows takes some names for devices, streams or drives, or
    drops dots and blanks at their ends; there they are refused.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise UnexpectedAnswer("the hub sent a strange name of an artifact: %r" % name)
    if is_windows and any(_MORE_ON_WINDOWS.search(part) for part in parts):
        raise UnexpectedAnswer("Windows takes the artifact's name for more than a name: %r" % name)
    return os.path.join(dest, *parts)


def fetch(module, client, base, item, path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=module.tmpdir, delete=False) as file:
        for piece in client.pieces(base + item["path"], PIECE_BYTES):
            digest.update(piece)
            file.write(piece)
    if digest.hexdigest() != item["sha256"]:
        os.unlink(file.name)
        raise UnexpectedAnswer("artifact %s did not arrive whole" % item["path"])
    module.atomic_move(file.name, path)
