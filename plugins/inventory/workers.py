# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: workers
short_description: The hub's live fleet as inventory
version_added: 0.1.0
description:
  - Each worker of the hub is a host. By default they are grouped by state, mode, driver and label.
  - The file's name ends in C(hostler.yml) or C(hostler.yaml).
  - What workers say of themselves is never taken as a template.
extends_documentation_fragment:
  - hostler.fleet.hub
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: Marks the file as this plugin's.
    type: str
    required: true
    choices: [hostler.fleet.workers]
  hub_token_file:
    description: A file that holds the token. A relative path counts from the inventory file.
    type: str
  hub_state_dir:
    description:
      - The state directory of a hub of this machine, which tells its URL and holds an admin's token.
      - A relative path counts from the inventory file.
    type: str
  group_by:
    description:
      - What groups there are without further ado, such as C(state_latent), C(mode_active), C(driver_local) and
        C(label_linux), C(group_docker) for workers that are of a group, and for V(trouble) the groups C(missing) and
        C(quarantined).
    type: list
    elements: str
    choices: [state, mode, driver, label, group, trouble]
    default: [state, mode, driver, label, group, trouble]
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
# live.hostler.yml: the fleet of a hub of this machine
plugin: hostler.fleet.workers
hub_state_dir: /var/lib/hostler

---
# fleet.hostler.yml: another one, cached for a minute, with groups of its own
plugin: hostler.fleet.workers
hub_url: https://hub.example.org
hub_token_file: ~/.config/hostler.token
group_by: [mode]
keyed_groups:
  - key: hostler_properties.os
    prefix: os
groups:
  busy: hostler_builds | length > 0
compose:
  note: hostler_mode_reason | default('nothing', true)
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/hostler
cache_timeout: 60
"""

import os

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.unsafe_proxy import wrap_var
from ansible_collections.hostler.fleet.plugins.module_utils import hosts, hub
from ansible_collections.hostler.fleet.plugins.module_utils.errors import HubError

HUB_OPTIONS = (
    "hub_url",
    "hub_token",
    "hub_token_file",
    "hub_state_dir",
    "hub_timeout",
    "hub_ca_file",
)
PAGE = 500


# Groups that every inventory has: a host of such a name would hide all others.
OF_ANSIBLE = ("all", "ungrouped")


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    NAME = "hostler.fleet.workers"

    def verify_file(self, path):
        return super().verify_file(path) and path.endswith(("hostler.yml", "hostler.yaml"))

    def parse(self, inventory, loader, path, cache=True):
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        key = self.get_cache_key(path)
        wanted = self.get_option("cache")
        views = self._cache.get(key) if wanted and cache else None
        if views is None:
            views = self._ask(os.path.dirname(os.path.abspath(path)))
            if wanted:
                self._cache[key] = views
        self.inventory.add_group("workers")
        for view in views:
            if view["name"] in OF_ANSIBLE:
                # Defined before hubs refused it.
                self.display.warning(
                    "worker %s is left out: a group of Ansible's own has its name; rename it"
                    % view["name"]
                )
            else:
                self._add(view)

    def _ask(self, folder):
        """The views of all workers, by the hub; each relative path counts from folder."""
        options = {name: self.get_option(name) for name in HUB_OPTIONS}
        for name in ("hub_token_file", "hub_state_dir"):
            if options[name]:
                options[name] = os.path.normpath(
                    os.path.join(folder, os.path.expanduser(options[name]))
                )
        try:
            client = hub.open_client(options, os.environ, keep_secret=lambda _token: None)
            return list(pages(client))
        except HubError as error:
            raise AnsibleParserError(error.message) from error

    def _add(self, view):
        name = str(view["name"])
        self.inventory.add_host(name, group="workers")
        variables = wrap_var(host_variables(view))
        for key, value in variables.items():
            self.inventory.set_variable(name, key, value)
        for word in self.get_option("group_by"):
            for words in groups_of(view, word):
                group = self._sanitize_group_name(words)
                self.inventory.add_host(name, self.inventory.add_group(group))
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), variables, name, strict=strict)
        inventory = self.inventory
        self.inventory = HostFirst(inventory, name)
        try:
            groups = self.get_option("groups")
            self._add_host_to_composed_groups(groups, variables, name, strict=strict)
        finally:
            self.inventory = inventory
        self._add_host_to_keyed_groups(
            self.get_option("keyed_groups"), variables, name, strict=strict
        )


class HostFirst:
    """An inventory in which one name always means the host, also where a group has it too.

    Ansible adds a group before a host of the same name: a worker called as a group would bring all
    hosts of that group into its own groups.
    """

    def __init__(self, inventory, host):
        self._inventory = inventory
        self._host = host

    def __getattr__(self, name):
        return getattr(self._inventory, name)

    def add_child(self, group, child):
        if child == self._host:
            return self._inventory.add_host(child, group)
        return self._inventory.add_child(group, child)


def pages(client):
    """Every worker's view, page after page."""
    query = {"limit": PAGE}
    while True:
        page = client.get("/workers", query)
        yield from page["items"]
        if not page["next"]:
            return
        query["after"] = page["next"]


def groups_of(view, word):
    """The groups that a worker is in by this word of group_by."""
    if word == "trouble":
        signs = {"missing": "missing", "quarantined": "quarantine"}
        return [group for group, key in sorted(signs.items()) if view.get(key)]
    if word == "group":
        values = [view["definition"]["group"]] if view["definition"].get("group") else []
    else:
        values = view["labels"] if word == "label" else [view[word]]
    return ["%s_%s" % (word, value) for value in values]


def host_variables(view):
    """A worker's variables: its definition as an inventory would hold it, and what the hub sees.

    hostler_effective_properties are the facts with the defined properties over them.
    """
    definition = view["definition"]
    variables = {hosts.PREFIX + key: definition[key] for key in hosts.DEFINED if key in definition}
    variables.update((hosts.PREFIX + key, view.get(key)) for key in hosts.OBSERVED)
    variables[hosts.PREFIX + hosts.EFFECTIVE] = view["properties"]
    return variables
