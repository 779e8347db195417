# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A build's logs: the last lines of what matters, or the whole into a file."""

from __future__ import annotations

LINE_BYTES = 200
PIECE_BYTES = 1024 * 1024


def read(client, build_id, step, offset, limit_bytes):
    """Bytes of one step's log from offset on; returns (bytes, offset of the next one)."""
    path = "/builds/%s/steps/%d/log" % (build_id, step)
    data, headers = client.read(path, {"offset": offset, "limit": limit_bytes})
    return data, int(headers.get("hostler-log-end") or offset + len(data))


def telling_step(build):
    """The step whose log tells how the build ended: the first that failed, else the last one.

    Returns None when no step has said anything.
    """
    spoke = [step for step in build["steps"] if step["log_size_bytes"]]
    failed = [step for step in spoke if step["state"] not in ("success", "pending", "skipped")]
    chosen = failed[:1] or spoke[-1:]
    return chosen[0] if chosen else None


def tail(client, build, lines):
    """The last lines (at most that many) of the step that tells most."""
    step = telling_step(build) if lines else None
    if step is None:
        return []
    offset = max(0, step["log_size_bytes"] - lines * LINE_BYTES)
    data = read(client, build["id"], step["index"], offset, PIECE_BYTES)[0]
    text = data.decode("utf-8", errors="replace").splitlines()
    # The first line is cut unless the log begins there.
    return (text[1:] if offset and len(text) > 1 else text)[-lines:]


def write_whole(client, build, file):
    """Write the logs of all steps to the binary file, in order, piece by piece."""
    for step in build["steps"]:
        offset = 0
        while True:
            data, following = read(client, build["id"], step["index"], offset, PIECE_BYTES)
            file.write(data)
            if not data or following >= step["log_size_bytes"]:
                break
            offset = following
