# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: table
short_description: Aligned lines of text from a list of dictionaries
version_added: 0.1.0
description:
  - Makes one line of each dictionary, with a heading, for people who read a terminal.
  - Control characters are shown as C(?), since some of the text may come from a worker.
positional: columns
options:
  _input:
    description: The rows.
    type: list
    elements: dict
    required: true
  columns:
    description:
      - The keys to show, in this order. C(key=Heading) gives another heading than the key's own words.
      - A list is shown with commas, a lease by its holder, time (UTC) and reason, another dictionary by its C(reason), a
        null or a missing key as C(-).
    type: list
    elements: str
    required: true
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Show the fleet
  ansible.builtin.debug:
    msg: "{{ fleet.workers | hostler.fleet.table(['name', 'state', 'mode', 'mode_reason=why']) }}"
"""

RETURN = r"""
_value:
  description: The lines, as one string.
  type: str
"""

from ansible.errors import AnsibleFilterError


def table(rows, columns):
    """The rows as aligned text; see DOCUMENTATION."""
    if not isinstance(rows, (list, tuple)) or not all(hasattr(row, "get") for row in rows):
        raise AnsibleFilterError("hostler.fleet.table: give a list of dictionaries")
    pairs = [column.partition("=") for column in columns]
    heads = [head or key.replace("_", " ") for key, _sign, head in pairs]
    lines = [heads] + [[words(row.get(key)) for key, _sign, _head in pairs] for row in rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(heads))]
    return "\n".join(aligned(line, widths) for line in lines)


def aligned(line, widths):
    return "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()


def words(value):
    """A value as printable text on one line."""
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(words(one) for one in value)
    if hasattr(value, "get") and value.get("holder"):
        return words(lease(value))
    if hasattr(value, "get"):
        return words(value.get("reason"))
    return "".join(one if one.isprintable() else "?" for one in str(value))


def lease(value):
    """Who has a worker, until when, and why; the day and seconds would make the line too long."""
    time = str(value.get("until")).partition("T")[2][:5]
    held = "until" if value.get("state") == "held" else "waits until"
    reason = ": %s" % value["reason"] if value.get("reason") else ""
    return "%s %s %s%s" % (value["holder"], held, time, reason)


class FilterModule:
    def filters(self):
        return {"table": table}
