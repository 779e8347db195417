#!/usr/bin/python
# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: worker
short_description: Define, remove, start or stop build workers
version_added: 0.1.0
description:
  - Defines the workers of a fleet at the hub, one or a thousand in one call, removes them, or substantiates and
    insubstantiates their instances.
  - A definition is given as a whole. An option that is left out is the hub's default again, also when the worker
    was defined with another value before.
  - All workers of a call are taken or none is. Should they be too many for one request, all are checked before the
    first is changed.
extends_documentation_fragment:
  - hostler.fleet.hub
  - hostler.fleet.select
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
      - V(present) defines the worker; the hub starts it when a build needs it.
      - V(absent) removes the definition, and the instance if there is one.
      - V(substantiated) starts an instance now and keeps it for its C(build_wait_timeout).
      - V(latent) ends the instance of an idle worker; it starts again when a build needs it.
    type: str
    choices: [present, absent, substantiated, latent]
    default: present
  name:
    description:
      - The worker's name, lower-case letters, digits and inner hyphens, up to 63 characters.
    type: str
  names:
    description:
      - Several workers, for every O(state) but V(present).
    type: list
    elements: str
  workers:
    description:
      - Several definitions, for O(state=present). Their options are those of the module.
    type: list
    elements: dict
    suboptions:
      name:
        description: The worker's name.
        type: str
        required: true
      driver: &driver
        description:
          - What starts the worker's instances, such as V(local) for processes of the hub's machine.
          - Required for O(state=present).
        type: str
      driver_options: &driver_options
        description: What the driver wants to know; see the driver.
        type: dict
      properties: &properties
        description: Facts that builds can require, as a scalar each. They win over those an instance reports.
        type: dict
      default_properties: &default_properties
        description: Facts that builds can require, where an instance reports no others. They lose against all others.
        type: dict
      labels: &labels
        description: Words that builds can require and people can select by.
        type: list
        elements: str
      max_builds: &max_builds
        description: How many builds the worker takes at once. The hub's default is 1.
        type: int
      max_uses: &max_uses
        description:
          - How many builds one instance is good for; then it is replaced by a fresh one.
          - Without it, and without O(max_uptime), an instance is used for as long as there is work.
        type: int
      max_uptime: &max_uptime
        description:
          - Seconds after which an instance gets no new builds, counted from its attaching. It is replaced when it is
            idle, never under a build.
        type: float
      priority: &priority
        description: Of several workers that fit a build, one of the highest priority is taken. The hub's default is 0.
        type: int
      group: &group
        description: The group that the worker is of; see M(hostler.fleet.group). The hub's default is none.
        type: str
      weight: &weight
        description: The worker's share of the builds among those of the same priority. The hub's default is 1.
        type: float
      build_wait_timeout: &build_wait_timeout
        description:
          - Seconds that an idle instance is kept; 0 ends it after each build, below 0 keeps it until the hub stops.
          - The hub's default is 600.
        type: float
      missing_timeout: &missing_timeout
        description:
          - Seconds that an instance may take to attach before it counts as failed, and that an agent may be gone
            before it is missing.
          - Left out, it is the driver's own, such as 120 for V(local) and 600 for V(permanent).
        type: float
      notify_on_missing: &notify_on_missing
        description: Mail addresses that are told when the worker is missing.
        type: list
        elements: str
      keepalive_interval: &keepalive_interval
        description:
          - Seconds between the hub's questions whether the agent lives. Silent for three of them, it is disconnected.
          - Left out, it is the hub's own.
        type: float
      check_instance_interval: &check_instance_interval
        description:
          - Seconds between looks at the instance, while its agent is not attached; six times as long while it is.
          - The hub's default is 10.
        type: float
      expects: &expects
        description:
          - What the machine must be and have. It is compared at each attach, before the first build; what differs
            quarantines the worker, with what was expected and what was found as the reason.
          - A worker that is resumed is compared again.
        type: dict
        suboptions:
          clock_skew_s:
            description: Seconds that the machine's clock may be ahead of the hub's, or behind it.
            type: float
          disk_free_mb:
            description: MiB that must be free on the disk that builds work on.
            type: int
          long_paths:
            description: Paths of more than 260 characters must work, which Windows has to be told.
            type: bool
          tools:
            description:
              - Executables that must be on the agent's C(PATH), each with a range of versions such as C(>=2.30) or
                C(>=3.9, <4), or C(*) for any. The agent asks them by C(--version).
            type: dict
          facts:
            description:
              - Conditions on what the agent tells of its machine, such as C(memory_mb >= 8000) or
                C(os_id in [debian, ubuntu]), in the words that builds use.
            type: list
            elements: str
      run_as: &run_as
        description:
          - Who the worker's builds run as. V(build_user) is a user of their own for each slot, where the agent has the
            rights to that (it is root), and else the agent's own. V(agent) is the agent's own user everywhere, which
            gives builds all that their agent may do and read.
          - The hub's default is V(build_user). What came of it is C(isolation) in M(hostler.fleet.worker_info).
          - Agents of driver V(permanent) have it in their own configuration.
        type: str
        choices: [build_user, agent]
      build_groups: &build_groups
        description:
          - Groups on the machine that the users of builds are members of, such as C(docker).
          - Whoever submits builds gets what these groups may do.
        type: list
        elements: str
      no_new_privileges: &no_new_privileges
        description:
          - Whether builds can gain no privileges by running a program, so that C(sudo) does not work in them.
          - The hub's default is V(false).
        type: bool
      password: &password
        description: What a worker of driver V(permanent) attaches with. Never shown again; keep it in Ansible Vault.
        type: str
      password_ref: &password_ref
        description: Where the hub finds the password, instead of O(password). Give one of the two.
        type: dict
        suboptions:
          env:
            description: A variable of the hub's environment whose name begins with C(HOSTLER_SECRET_).
            type: str
          file:
            description: A file in the hub's directory of secrets.
            type: str
      description: &description
        description: A note for people.
        type: str
  driver: *driver
  driver_options: *driver_options
  properties: *properties
  default_properties: *default_properties
  labels: *labels
  max_builds: *max_builds
  max_uses: *max_uses
  max_uptime: *max_uptime
  priority: *priority
  group: *group
  weight: *weight
  build_wait_timeout: *build_wait_timeout
  missing_timeout: *missing_timeout
  notify_on_missing: *notify_on_missing
  keepalive_interval: *keepalive_interval
  check_instance_interval: *check_instance_interval
  expects: *expects
  run_as: *run_as
  build_groups: *build_groups
  no_new_privileges: *no_new_privileges
  password: *password
  password_ref: *password_ref
  description: *description
  fields:
    description:
      - For O(state=present), tell also how the workers are, in RV(workers), with only these keys beside C(name). It saves
        a call of M(hostler.fleet.worker_info).
    type: list
    elements: str
  force:
    description:
      - For O(state=absent), remove a worker also while it builds. Its builds are retried elsewhere.
    type: bool
    default: false
  wait:
    description:
      - Wait until the instance is attached, or gone, or the worker removed.
    type: bool
    default: true
  deadline_s:
    description:
      - Seconds to wait. The module fails with a list of what is left undone.
      - A worker whose start has failed is not waited for any longer, since an order starts it once.
    type: float
    default: 120
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Define a worker
  hostler.fleet.worker:
    name: local-1
    driver: local
    labels: [linux]
    build_wait_timeout: 60

- name: Define a worker that builds only on a machine that is fit for it
  hostler.fleet.worker:
    name: build-7
    driver: permanent
    password_ref:
      file: build-7
    expects:
      clock_skew_s: 5
      disk_free_mb: 20000
      tools:
        git: ">=2.30"
        python3: ">=3.9, <4"
      facts:
        - memory_mb >= 8000

- name: Define the fleet of the inventory in one call
  hostler.fleet.worker:
    workers: "{{ hostvars | hostler.fleet.definitions(ansible_play_hosts_all) }}"
  run_once: true
  delegate_to: localhost

- name: Start two of them before the day begins
  hostler.fleet.worker:
    names: [docker-1, docker-2]
    state: substantiated
    deadline_s: 60

- name: End the instances of idle workers that have been patched
  hostler.fleet.worker:
    select:
      labels: [linux]
      state: [substantiated]
    state: latent

- name: Remove a worker, even if it builds
  hostler.fleet.worker:
    name: local-1
    state: absent
    force: true
"""

RETURN = r"""
created:
  description: Names of the workers that are new. Only for O(state=present).
  returned: success
  type: list
  elements: str
  sample: [local-1]
changed_workers:
  description: Names of the workers that were not what was asked for, new ones among them.
  returned: success
  type: list
  elements: str
  sample: [local-1, local-2]
unchanged_workers:
  description: Names of the workers that were so already.
  returned: success
  type: list
  elements: str
  sample: [local-3]
definition:
  description: The worker's definition at the hub, without its password. Only for O(state=present) with O(name).
  returned: success
  type: dict
  contains:
    name:
      description: The worker's name.
      type: str
      returned: always
    driver:
      description: What starts its instances.
      type: str
      returned: always
    driver_options:
      description: What the driver starts its instances with.
      type: dict
      returned: always
    properties:
      description: Facts that builds can require; they win over those its agent reports.
      type: dict
      returned: always
    default_properties:
      description: The same, but those that its agent reports win.
      type: dict
      returned: always
    labels:
      description: Words that builds can require.
      type: list
      elements: str
      returned: always
    priority:
      description: Of several workers that fit a build, one of the highest is taken.
      type: int
      returned: always
    weight:
      description: Its share of the builds among workers of its priority.
      type: float
      returned: always
    group:
      description: The group that it is of.
      type: str
      returned: always
    max_builds:
      description: How many builds it runs at once.
      type: int
      returned: always
    max_uses:
      description: How many builds one instance is good for.
      type: int
      returned: always
    max_uptime:
      description: For how many seconds one instance gets new builds.
      type: float
      returned: always
    build_wait_timeout:
      description: Seconds without a build until its instance is stopped; 0 at once, below 0 only when the hub stops.
      type: float
      returned: always
    missing_timeout:
      description: Seconds until an instance whose agent does not attach is given up; null is the driver's.
      type: float
      returned: always
    notify_on_missing:
      description: Mail addresses that are told of its incidents.
      type: list
      elements: str
      returned: always
    keepalive_interval:
      description: Seconds between two pings of its agent; null is the hub's.
      type: float
      returned: always
    check_instance_interval:
      description: Seconds between two looks of the driver at its instance.
      type: float
      returned: always
    expects:
      description: What is compared with its machine at each attach, before the first lease.
      type: dict
      returned: always
    run_as:
      description:
        - "Who its builds run as: a user of their own where its agent has the rights, or the agent's own."
      type: str
      returned: always
    build_groups:
      description: Groups on its machine that the users of its builds are members of.
      type: list
      elements: str
      returned: always
    no_new_privileges:
      description: Whether its builds can gain no privileges, as by sudo.
      type: bool
      returned: always
    description:
      description: What it is for, for people.
      type: str
      returned: always
    password_ref:
      description: Where the hub finds the worker's password.
      type: dict
      returned: always
    has_password:
      description: Whether the hub knows a password of the worker.
      type: bool
      returned: always
  sample: {name: local-1, driver: local, max_builds: 1}
workers:
  description: How the workers are. In check mode new ones are not among them.
  returned: when O(fields) is given
  type: list
  elements: dict
  sample: [{name: local-1, mode: active, state: latent}]
left:
  description: What is left undone at the deadline, in a few words per worker.
  returned: failure after waiting
  type: dict
  sample: {local-2: substantiating}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import (
    batch,
    hub,
    numbers,
    selection,
    waiting,
)

DEFINITION = {
    "driver": {"type": "str"},
    "driver_options": {"type": "dict"},
    "properties": {"type": "dict"},
    "default_properties": {"type": "dict"},
    "labels": {"type": "list", "elements": "str"},
    "max_builds": {"type": "int"},
    "max_uses": {"type": "int"},
    "max_uptime": {"type": "float"},
    "priority": {"type": "int"},
    "group": {"type": "str"},
    "weight": {"type": "float"},
    "build_wait_timeout": {"type": "float"},
    "missing_timeout": {"type": "float"},
    "notify_on_missing": {"type": "list", "elements": "str"},
    "keepalive_interval": {"type": "float"},
    "check_instance_interval": {"type": "float"},
    "expects": {
        "type": "dict",
        "options": {
            "clock_skew_s": {"type": "float"},
            "disk_free_mb": {"type": "int"},
            "long_paths": {"type": "bool"},
            "tools": {"type": "dict"},
            "facts": {"type": "list", "elements": "str"},
        },
    },
    "run_as": {"type": "str", "choices": ["build_user", "agent"]},
    "build_groups": {"type": "list", "elements": "str"},
    "no_new_privileges": {"type": "bool"},
    "password": {"type": "str", "no_log": True},
    "password_ref": {
        "type": "dict",
        "no_log": False,  # it names a secret and holds none
        "options": {"env": {"type": "str"}, "file": {"type": "str"}},
    },
    "description": {"type": "str"},
}


def definitions(module):
    """What the hub should know, as it takes it: only what was given."""
    given = module.params["workers"]
    if given is None:
        given = [{key: module.params[key] for key in ("name", *DEFINITION)}]
    wanted = [
        {key: numbers.plain(value) for key, value in one.items() if value is not None}
        for one in given
    ]
    for one in wanted:
        refer_to_password(module, one)
        if "expects" in one:
            told = one["expects"].items()
            one["expects"] = {key: numbers.plain(value) for key, value in told if value is not None}
        if "driver" not in one:
            module.fail_json(
                msg="worker %s: driver is required for state=present, for example driver: local"
                % one["name"]
            )
    return wanted


def refer_to_password(module, one):
    """The hub takes either kind of password under one name."""
    ref = one.pop("password_ref", None)
    if ref is None:
        return
    if "password" in one:
        module.fail_json(msg="worker %s: give password or password_ref, not both" % one["name"])
    one["password"] = {key: value for key, value in ref.items() if value is not None}


def names(module):
    """The workers that another state is about; refuses definitions, which would be ignored."""
    state = module.params["state"]
    stray = [key for key in ("workers", *DEFINITION) if module.params[key] is not None]
    if stray:
        module.fail_json(
            msg="%s: only for state=present; state=%s takes name or names" % (stray[0], state)
        )
    if module.params["select"] is not None:
        return []
    given = module.params["names"]
    return [module.params["name"]] if given is None else list(dict.fromkeys(given))


def summarise(results):
    return {
        "changed": any(one["changed"] for one in results),
        "changed_workers": [one["name"] for one in results if one["changed"]],
        "unchanged_workers": [one["name"] for one in results if not one["changed"]],
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
    wanted = definitions(module)
    results = batch.post(client, "/workers/define", "workers", wanted, module.check_mode)
    answer = summarise(results)
    answer["created"] = [one["name"] for one in results if one["created"]]
    if module.params["name"] is not None:
        answer["definition"] = results[0]["after"]
    if module.params["fields"] is not None:
        views = batch.query(client, [one["name"] for one in wanted])[0]
        answer["workers"] = selection.trim(views, module.params["fields"])
    if module._diff:  # noqa: SLF001  (Ansible has no other way to ask)
        answer["diff"] = diff(results)
    module.exit_json(**answer)


# state -> (path, the words for what a worker leaves undone)
ORDERS = {
    "absent": ("/workers/remove", waiting.not_gone),
    "substantiated": ("/workers/substantiate", waiting.not_attached),
    "latent": ("/workers/insubstantiate", waiting.not_resting),
}


def order(module, client):
    state = module.params["state"]
    path, left_undone = ORDERS[state]
    wanted = names(module)
    rest = {"force": module.params["force"]} if state == "absent" else {}
    results, wanted = selection.order(
        client, path, wanted, module.params["select"], module.check_mode, **rest
    )
    answer = summarise(results)
    if module._diff:  # noqa: SLF001  (Ansible has no other way to ask)
        answer["diff"] = [state_diff(one, state) for one in results if one["changed"]]
    if module.params["wait"] and not module.check_mode:
        deadline_s = module.params["deadline_s"]
        left = waiting.wait_for(client, wanted, left_undone, deadline_s)
        if left:
            message = waiting.undone_message(left, deadline_s)
            left = {name: str(words) for name, words in left.items()}
            module.fail_json(msg=message, left=left, **answer)
    module.exit_json(**answer)


def state_diff(result, state):
    before = "present" if state == "absent" else "not %s" % state
    return {
        "before": "%s: %s\n" % (result["name"], before),
        "after": "%s: %s\n" % (result["name"], state),
    }


def work(module, client):
    if module.params["state"] == "present":
        for option in ("names", "select"):
            if module.params[option] is not None:
                module.fail_json(
                    msg="%s: not for state=present; give name with driver, or workers" % option
                )
        define(module, client)
    order(module, client)


def main():
    options = {"name": {"type": "str", "required": True}}
    module = AnsibleModule(
        argument_spec=hub.argument_spec(
            state={
                "type": "str",
                "choices": ["present", "absent", "substantiated", "latent"],
                "default": "present",
            },
            name={"type": "str"},
            names={"type": "list", "elements": "str"},
            select=selection.OPTION,
            workers={"type": "list", "elements": "dict", "options": dict(options, **DEFINITION)},
            fields={"type": "list", "elements": "str"},
            force={"type": "bool", "default": False},
            wait={"type": "bool", "default": True},
            deadline_s={"type": "float", "default": 120},
            **DEFINITION,
        ),
        mutually_exclusive=[("name", "names", "workers", "select")]
        + [("workers", option) for option in DEFINITION],
        required_one_of=[("name", "names", "workers", "select")],
        supports_check_mode=True,
    )
    hub.run(module, work)


if __name__ == "__main__":
    main()
