# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: definitions
short_description: Worker definitions from inventory hosts
version_added: 0.1.0
description:
  - Makes the list for option C(workers) of M(hostler.fleet.worker) from the hosts' variables, C(hostler_driver) and so
    on.
  - One filter for the whole fleet, since a loop over a thousand hosts costs a task's time for each of them.
  - A variable of that prefix that is no option of a worker is refused, since it is a slip of the pen.
positional: hosts
options:
  _input:
    description: The variable C(hostvars).
    type: dict
    required: true
  hosts:
    description: The hosts to make definitions of, such as C(ansible_play_hosts_all).
    type: list
    elements: str
    required: true
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Define the fleet of the inventory
  hostler.fleet.worker:
    workers: "{{ hostvars | hostler.fleet.definitions(ansible_play_hosts_all) }}"
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: A definition for each host.
  type: list
  elements: dict
"""

from ansible.errors import AnsibleFilterError
from ansible_collections.hostler.fleet.plugins.module_utils.hosts import (
    DEFINED,
    EFFECTIVE,
    OBSERVED,
    PREFIX,
)

SETTABLE = (*DEFINED, "password")
KNOWN = frozenset(PREFIX + word for word in (*SETTABLE, *OBSERVED, EFFECTIVE))
# Variables of the role hostler.fleet.missing.
LADDER = PREFIX + "missing_"


def definition(host, variables):
    """The host's definition; raises AnsibleFilterError when it makes none."""
    own = [name for name in variables if name.startswith(PREFIX)]
    stray = sorted(name for name in own if name not in KNOWN and not name.startswith(LADDER))
    if stray:
        raise AnsibleFilterError(
            "host %s: %s is no option of a worker; there are %s"
            % (host, ", ".join(stray), ", ".join(PREFIX + word for word in SETTABLE))
        )
    if PREFIX + "driver" not in own:
        raise AnsibleFilterError(
            "host %s has no hostler_driver; set it in the inventory, for example to local" % host
        )
    given = {word: variables[PREFIX + word] for word in SETTABLE if PREFIX + word in own}
    return dict(given, name=host)


def definitions(hostvars, hosts):
    """Definitions of the hosts, in their order; see DOCUMENTATION."""
    return [definition(host, hostvars[host]) for host in hosts]


class FilterModule:
    def filters(self):
        return {"definitions": definitions}
