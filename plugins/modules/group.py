#!/usr/bin/python
# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: group
short_description: Define or remove groups of workers
version_added: 0.1.0
description:
  - Defines what workers of a group have in common at the hub, how many instances are kept idle, how many there may be,
    when, and how fast they are started.
  - A worker is of the group that its own definition names, by the option C(group) of M(hostler.fleet.worker).
  - A definition is given as a whole. An option that is left out is the hub's default again.
  - All groups of a call are taken or none is.
extends_documentation_fragment:
  - hostler.fleet.hub
attributes:
  check_mode:
    support: full
    description: The hub itself says what would change.
  diff_mode:
    support: full
    description: The definitions that change, before and after.
options:
  state:
    description:
      - V(present) defines the group.
      - V(absent) removes the definition. The workers stay, and have no limits in common any more.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: The group's name, lower-case letters, digits and inner hyphens, up to 63 characters.
    type: str
  names:
    description: Several groups, for O(state=absent).
    type: list
    elements: str
  groups:
    description: Several definitions, for O(state=present). Their options are those of the module.
    type: list
    elements: dict
    suboptions:
      name:
        description: The group's name.
        type: str
        required: true
      min_idle: &min_idle
        description: How many instances are kept up and idle, beside those that work. The hub's default is 0.
        type: int
      max_instances: &max_instances
        description: How many instances there may be, whatever waits, those being started or stopped too. Any number by default.
        type: int
      schedules: &schedules
        description:
          - Windows in which other numbers hold. Each begins at the instants of a cron expression.
          - Where windows overlap, the one listed last wins.
        type: list
        elements: dict
        suboptions:
          name:
            description: What it is called, for people.
            type: str
          cron:
            description: Minute, hour, day of the month, month, day of the week.
            type: str
            required: true
          time_zone:
            description: The zone of O(groups[].schedules[].cron), such as V(Europe/Berlin). The hub's default is V(UTC).
            type: str
          duration_s:
            description: How many seconds each window lasts.
            type: float
            required: true
          min_idle:
            description: How many instances are kept idle meanwhile.
            type: int
          max_instances:
            description: How many instances there may be meanwhile.
            type: int
      max_starting: &max_starting
        description: How many instances may be starting at once. Any number by default.
        type: int
      max_starts_per_minute: &max_starts_per_minute
        description: How many instances may be started within a minute. Any number by default.
        type: int
      failures_allowed: &failures_allowed
        description:
          - After so many failed starts in a row, of more than one worker, none is started for 30 s, then a single one to
            try; each failure of that doubles the pause, up to an hour. The hub's default is 5.
        type: int
      description: &description
        description: A note for people.
        type: str
  min_idle: *min_idle
  max_instances: *max_instances
  schedules: *schedules
  max_starting: *max_starting
  max_starts_per_minute: *max_starts_per_minute
  failures_allowed: *failures_allowed
  description: *description
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Keep two containers idle, eight in office hours, and never have more than twenty
  hostler.fleet.group:
    name: docker
    min_idle: 2
    max_instances: 20
    max_starting: 4
    schedules:
      - name: office hours
        cron: 0 8 * * 1-5
        time_zone: Europe/Berlin
        duration_s: 36000
        min_idle: 8

- name: Define the groups of the inventory
  hostler.fleet.group:
    groups: "{{ fleet_groups }}"
  run_once: true
  delegate_to: localhost

- name: Let the workers be without limits in common
  hostler.fleet.group:
    name: docker
    state: absent
"""

RETURN = r"""
created:
  description: Names of the groups that are new. Only for O(state=present).
  returned: success
  type: list
  elements: str
  sample: [docker]
changed_groups:
  description: Names of the groups that were not what was asked for, new ones among them.
  returned: success
  type: list
  elements: str
  sample: [docker, ec2]
unchanged_groups:
  description: Names of the groups that were so already.
  returned: success
  type: list
  elements: str
  sample: [local]
definition:
  description: The group's definition at the hub. Only for O(state=present) with O(name).
  returned: success
  type: dict
  contains:
    name:
      description: The group's name.
      type: str
      returned: always
    min_idle:
      description: How many instances are kept up and idle.
      type: int
      returned: always
    max_instances:
      description: How many there may be that are not proven gone; null for any number.
      type: int
      returned: always
    schedules:
      description: Windows in which other numbers hold.
      type: list
      elements: dict
      returned: always
    max_starting:
      description: How many may be starting at once; null for any number.
      type: int
      returned: always
    max_starts_per_minute:
      description: How many may be started within a minute; null for any number.
      type: int
      returned: always
    failures_allowed:
      description: After so many failed starts in a row, of more than one worker, none is started for a while.
      type: int
      returned: always
    description:
      description: What it is for, for people.
      type: str
      returned: always
  sample: {name: docker, min_idle: 2, max_instances: 20}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import batch, hub, numbers

SCHEDULE = {
    "name": {"type": "str"},
    "cron": {"type": "str", "required": True},
    "time_zone": {"type": "str"},
    "duration_s": {"type": "float", "required": True},
    "min_idle": {"type": "int"},
    "max_instances": {"type": "int"},
}
DEFINITION = {
    "min_idle": {"type": "int"},
    "max_instances": {"type": "int"},
    "schedules": {"type": "list", "elements": "dict", "options": SCHEDULE},
    "max_starting": {"type": "int"},
    "max_starts_per_minute": {"type": "int"},
    "failures_allowed": {"type": "int"},
    "description": {"type": "str"},
}


def given(options):
    """The options that were given, as the hub takes them."""
    return {key: numbers.plain(value) for key, value in options.items() if value is not None}


def definitions(params):
    """What the hub should know, as it takes it: only what was given."""
    groups = params["groups"]
    if groups is None:
        groups = [{key: params[key] for key in ("name", *DEFINITION)}]
    wanted = [given(one) for one in groups]
    for one in wanted:
        if "schedules" in one:
            one["schedules"] = [given(schedule) for schedule in one["schedules"]]
    return wanted


def summarise(results):
    return {
        "changed": any(one["changed"] for one in results),
        "changed_groups": [one["name"] for one in results if one["changed"]],
        "unchanged_groups": [one["name"] for one in results if not one["changed"]],
    }


def diff(results):
    return [
        {
            "before_header": one["name"],
            "after_header": one["name"],
            "before": one["before"] or {},
            "after": one["after"],
        }
        for one in results
        if one["changed"]
    ]


def define(module, client):
    wanted = definitions(module.params)
    results = batch.post(client, "/groups/define", "groups", wanted, module.check_mode)
    answer = summarise(results)
    answer["created"] = [one["name"] for one in results if one["created"]]
    if module.params["name"] is not None:
        answer["definition"] = results[0]["after"]
    if module._diff:  # noqa: SLF001  (Ansible has no other way to ask)
        answer["diff"] = diff(results)
    module.exit_json(**answer)


def remove(module, client):
    params = module.params
    stray = [key for key in ("groups", *DEFINITION) if params[key] is not None]
    if stray:
        module.fail_json(
            msg="%s: only for state=present; state=absent takes name or names" % stray[0]
        )
    names = [params["name"]] if params["names"] is None else list(dict.fromkeys(params["names"]))
    results = batch.post(client, "/groups/remove", "names", names, module.check_mode)
    answer = summarise(results)
    if module._diff:  # noqa: SLF001  (Ansible has no other way to ask)
        answer["diff"] = [
            {"before": "%s: present\n" % one["name"], "after": "%s: absent\n" % one["name"]}
            for one in results
            if one["changed"]
        ]
    module.exit_json(**answer)


def work(module, client):
    if module.params["state"] == "absent":
        remove(module, client)
    if module.params["names"] is not None:
        module.fail_json(msg="names: not for state=present; give name, or groups")
    define(module, client)


def main():
    options = {"name": {"type": "str", "required": True}}
    module = AnsibleModule(
        argument_spec=hub.argument_spec(
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            name={"type": "str"},
            names={"type": "list", "elements": "str"},
            groups={"type": "list", "elements": "dict", "options": dict(options, **DEFINITION)},
            **DEFINITION,
        ),
        mutually_exclusive=[("name", "names", "groups")]
        + [("groups", option) for option in DEFINITION],
        required_one_of=[("name", "names", "groups")],
        supports_check_mode=True,
    )
    hub.run(module, work)


if __name__ == "__main__":
    main()
