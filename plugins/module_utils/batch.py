# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Large requests cut into pieces that the hub's body limit takes, as if they were one."""

from __future__ import annotations

import json
import re

from ansible_collections.hostler.fleet.plugins.module_utils.errors import HubError

# The hub takes bodies of 1 MiB; room is left for the envelope around the items.
BODY_BYTES = 900 * 1024


def cut(items, limit_bytes=BODY_BYTES):
    """Cut items into consecutive lists whose JSON stays below limit_bytes each."""
    pieces, piece, size = [], [], 0
    for item in items:
        length = len(json.dumps(item)) + 2
        if piece and size + length > limit_bytes:
            pieces.append(piece)
            piece, size = [], 0
        piece.append(item)
        size += length
    if piece:
        pieces.append(piece)
    return pieces


def post(client, path, key, items, dry_run=False, limit_bytes=BODY_BYTES, **rest):
    """POST items under key to path and return the hub's results, in order.

    The hub takes one request as a whole or not at all. When there must be several, all of them are
    tried dry first, so that a mistake in the last one is found before the first one is done.
    A pointer in an error counts from the first of all items.
    """
    pieces = cut(items, limit_bytes)
    results = []
    if len(pieces) > 1 and not dry_run:
        post(client, path, key, items, dry_run=True, limit_bytes=limit_bytes, **rest)
    done = 0
    for piece in pieces:
        body = dict(rest, dry_run=dry_run)
        body[key] = piece
        try:
            results.extend(client.post(path, body)["results"])
        except HubError as error:
            raise shifted(error, key, done) from None
        done += len(piece)
    return results


def query(client, names, limit_bytes=BODY_BYTES):
    """The views of the workers named, and the names the hub does not know."""
    views, unknown = [], []
    for piece in cut(names, limit_bytes):
        answer = client.post("/workers/query", {"names": piece})
        views.extend(answer["items"])
        unknown.extend(answer["unknown"])
    return views, unknown


def shifted(error, key, offset):
    """The error, with pointers such as /workers/3/name moved on by offset."""
    if not offset:
        return error

    def move(text):
        return re.sub(
            r"/%s/(\d+)" % re.escape(key),
            lambda found: "/%s/%d" % (key, int(found.group(1)) + offset),
            text,
        )

    details = [dict(one, pointer=move(one.get("pointer") or "")) for one in error.details]
    pointer = move(error.pointer) if error.pointer else None
    return type(error)(move(error.message), error.status, pointer, details)
