"""Finds the numeric ids of the container's user, who will own the agent's files.

A tar archive is unpacked by numeric ids, while images and options may name users that only the
image's own /etc/passwd knows.
"""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

from hostler_hub.drivers.docker.payload import Owner
from hostler_hub.drivers.errors import OptionsRefused

if TYPE_CHECKING:
    from docker import APIClient

_FILE_BYTES = 1024 * 1024


def owner_of(client: APIClient, container: str, user: str) -> Owner:
    """The numeric ids of ``user`` (``NAME[:GROUP]``, names or numbers) inside the container.

    Raises OptionsRefused for a name that the image does not know.
    """
    name, _, group = user.partition(":")
    if name in {"", "root", "0"}:
        uid, gid = 0, 0
    elif name.isdecimal():
        uid, gid = int(name), 0
    else:
        entry = _entry(client, container, "/etc/passwd", name)
        uid, gid = int(entry[2]), int(entry[3])
    if group.isdecimal():
        gid = int(group)
    elif group:
        gid = int(_entry(client, container, "/etc/group", group)[2])
    return Owner(uid, gid)


def _entry(client: APIClient, container: str, path: str, name: str) -> list[str]:
    for line in _read(client, container, path).splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) > 3:
            return fields
    raise OptionsRefused(f"docker: driver_options.user: the image's {path} has no {name}")


def _read(client: APIClient, container: str, path: str) -> str:
    pieces, _ = client.get_archive(container, path)
    data = b""
    for piece in pieces:
        data += piece
        if len(data) > _FILE_BYTES:
            raise OptionsRefused(f"docker: driver_options.user: the image's {path} is too large")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = archive.next()
        content = archive.extractfile(member) if member is not None and member.isreg() else None
        return content.read().decode(errors="replace") if content is not None else ""
