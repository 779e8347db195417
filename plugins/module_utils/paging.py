# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists that the hub gives a page at a time."""

from __future__ import annotations

PAGE = 500


def newest(module, client, path, query, limit):
    """The first items of a list, at most limit of them; fails the module when limit is no count."""
    if limit < 1:
        module.fail_json(msg="limit: %d is no count; give 1 or more" % limit)
    items = []
    while len(items) < limit:
        page = client.get(path, dict(query, limit=min(PAGE, limit - len(items))))
        items.extend(page["items"])
        if not page.get("next"):
            break
        query = dict(query, after=page["next"])
    return items
