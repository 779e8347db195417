#!/usr/bin/python
# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: build
short_description: Run a build on a worker, or cancel one
version_added: 0.1.0
description:
  - Submits a build to the hub, waits for its result and fetches its log.
  - The module fails when the build ends in anything but V(success), and says why a build still waits at the deadline.
extends_documentation_fragment:
  - hostler.fleet.hub
attributes:
  check_mode:
    support: partial
    description: Nothing is submitted.
    details: Whether a worker would fit is not asked.
  diff_mode:
    support: none
    description: A build is an event, no state.
options:
  state:
    description:
      - V(present) submits a build.
      - V(cancelled) cancels the build O(id); one that has ended already stays as it is.
    type: str
    choices: [present, cancelled]
    default: present
  id:
    description: The build to cancel.
    type: str
  name:
    description: What the build is called, for people.
    type: str
  steps:
    description: What is run, in order. Required for O(state=present).
    type: list
    elements: dict
    suboptions:
      name:
        description: What the step is called.
        type: str
        required: true
      command:
        description: A list of arguments, or a string for the worker's shell.
        type: raw
        required: true
      workdir:
        description: Where it runs, absolute or within the build's own workspace.
        type: str
      env:
        description: Variables of this step over those of the build. A null takes a variable away.
        type: dict
      timeout_s:
        description: Seconds without output after which the step is ended; 0 for never. The hub's default is 1200.
        type: float
      max_time_s:
        description: Seconds after which the step is ended.
        type: float
      max_lines:
        description: Lines of output after which the step is ended.
        type: int
      sigterm_time_s:
        description: Seconds between the polite and the certain signal; 0 for the certain one at once. The hub's default is 10.
        type: float
      halt_on_failure:
        description: Whether a failure ends the build. The hub's default is V(true).
        type: bool
      always_run:
        description: Whether the step runs even after a failure. The hub's default is V(false).
        type: bool
  requires:
    description: What the worker must be.
    type: dict
    suboptions:
      worker:
        description: Its name.
        type: str
      driver:
        description: Its driver.
        type: str
      labels:
        description: Labels that it must all have.
        type: list
        elements: str
      properties:
        description: Properties that must all be equal.
        type: dict
  env:
    description:
      - Variables of all steps. Set C(no_log) on the task when there is a secret among them.
    type: dict
  properties:
    description: Facts about the build, as a scalar each.
    type: dict
  priority:
    description: Builds of a higher priority go first. The hub's default is 0.
    type: int
  timeout_s:
    description: Seconds after which the whole build is ended.
    type: float
  retry:
    description: What happens when the build loses its worker.
    type: dict
    suboptions:
      on_loss:
        description: How often it is tried again; 0 never. The hub's default is 2, three attempts in all.
        type: int
  idempotency_key:
    description:
      - A second submission with the same key is the same build, and no change.
      - The same key with another build is refused.
    type: str
  reason:
    description: Why a build is cancelled.
    type: str
  wait:
    description: Wait for the result.
    type: bool
    default: true
  deadline_s:
    description: Seconds to wait. A build that has not ended then goes on, unless O(cancel_late) is set.
    type: float
    default: 3600
  cancel_late:
    description: Cancel the build when it has not ended at the deadline.
    type: bool
    default: false
  log_tail_lines:
    description: How many of the last lines to return, of the step that failed or else the last one.
    type: int
    default: 20
  log_dest:
    description: A file for the whole log of all steps, on the machine where the module runs.
    type: path
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Build and test on any Linux worker
  hostler.fleet.build:
    name: nightly
    requires:
      labels: [linux]
    steps:
      - name: configure
        command: ./configure --prefix=/opt/product
        workdir: /srv/product
      - name: make
        command: [make, -j4]
        workdir: /srv/product
        timeout_s: 300
    deadline_s: 1800
    log_dest: /tmp/nightly.log

- name: Submit once per commit, and do not wait
  hostler.fleet.build:
    steps:
      - name: test
        command: [make, test]
    idempotency_key: "test-{{ commit | default('HEAD') }}"
    wait: false
  register: submitted

- name: Cancel it
  hostler.fleet.build:
    state: cancelled
    id: "{{ submitted.build.id }}"
    reason: superseded
"""

RETURN = r"""
build:
  description: The build as the hub tells it.
  returned: always but in check mode
  type: dict
  sample: {id: 01JD0000000000000000000000, state: success, worker: local-1, attempts: 1}
log_tail:
  description: The last lines of the step that failed, or else of the last one.
  returned: when waited for
  type: list
  elements: str
  sample: ["compiling hub/app.py"]
log_dest:
  description: The file with the whole log.
  returned: when O(log_dest) is given
  type: str
  sample: /tmp/nightly.log
"""

import os
import tempfile
import time
import uuid

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import build_log, hub, numbers
from ansible_collections.hostler.fleet.plugins.module_utils.errors import HubUnreachable

TERMINAL = ("success", "failure", "exception", "cancelled")
POLL_S = 20
# Zero in a playbook is the hub's null: no limit, no polite signal.
ZERO_IS_NULL = ("timeout_s", "sigterm_time_s")

STEP = {
    "name": {"type": "str", "required": True},
    "command": {"type": "raw", "required": True},
    "workdir": {"type": "str"},
    "env": {"type": "dict"},
    "timeout_s": {"type": "float"},
    "max_time_s": {"type": "float"},
    "max_lines": {"type": "int"},
    "sigterm_time_s": {"type": "float"},
    "halt_on_failure": {"type": "bool"},
    "always_run": {"type": "bool"},
}
REQUIRES = {
    "worker": {"type": "str"},
    "driver": {"type": "str"},
    "labels": {"type": "list", "elements": "str"},
    "properties": {"type": "dict"},
}
SPEC = ("name", "requires", "env", "properties", "priority", "timeout_s", "retry")


def given(options):
    """The options that were given, as the hub takes them."""
    return {key: numbers.plain(value) for key, value in options.items() if value is not None}


def text_values(env):
    """Variables as strings: YAML makes numbers and booleans of unquoted ones."""
    return {
        key: value if value is None or isinstance(value, str) else str(value)
        for key, value in env.items()
    }


def spec(params):
    """The build specification by the module's options."""
    body = given({key: params[key] for key in SPEC})
    for key in ("requires", "retry"):
        if key in body:
            body[key] = given(body[key])
    body["steps"] = [step_spec(step) for step in params["steps"]]
    if "env" in body:
        body["env"] = text_values(body["env"])
    return body


def step_spec(step):
    body = given(step)
    for key in ZERO_IS_NULL:
        if key in body and body[key] == 0:
            body[key] = None
    if "env" in body:
        body["env"] = text_values(body["env"])
    return body


def submit(module, client):
    """Returns the build and whether it is new."""
    # A key of our own lets a refused connection be tried again without building twice.
    key = module.params["idempotency_key"] or "module-%s" % uuid.uuid4()
    return client.post_new("/builds", spec(module.params), {"Idempotency-Key": key})


def wait_for(client, build, deadline_s, now=time.monotonic):
    """The build when it has ended, or as it is at the deadline. A hub that restarts is waited for."""
    end = now() + deadline_s
    while build["state"] not in TERMINAL and now() < end:
        wait_s = max(0.1, min(POLL_S, end - now()))
        try:
            build = client.wait_get("/builds/" + build["id"], wait_s)
        except HubUnreachable:
            if now() >= end:
                raise
    return build


def finish(module, client, build, changed):
    """Fetch the logs and exit, or fail by the build's result."""
    answer = {"changed": changed, "build": build}
    answer["log_tail"] = build_log.tail(client, build, module.params["log_tail_lines"])
    if module.params["log_dest"]:
        answer["log_dest"] = save_log(module, client, build)
    if build["state"] == "success":
        module.exit_json(**answer)
    if build["state"] not in TERMINAL:
        answer["msg"] = late(module, client, build)
    else:
        why = build.get("result_text") or "see its log"
        answer["msg"] = "build %s ended in %s: %s" % (build["id"], build["state"], why)
    module.fail_json(**answer)


def late(module, client, build):
    """Say what became of a build that has not ended at the deadline."""
    why = build.get("why") or "on worker %s" % build["worker"]
    left = "it goes on"
    if module.params["cancel_late"]:
        reason = {"reason": "not done after %s s" % module.params["deadline_s"]}
        left = "now %s" % client.post("/builds/%s/cancel" % build["id"], reason)["state"]
    return "build %s is %s after %s s (%s); %s" % (
        build["id"],
        build["state"],
        numbers.plain(module.params["deadline_s"]),
        why,
        left,
    )


def save_log(module, client, build):
    dest = module.params["log_dest"]
    folder = os.path.dirname(os.path.abspath(dest))
    if not os.path.isdir(folder):
        module.fail_json(msg="log_dest: %s is no directory" % folder, build=build)
    with tempfile.NamedTemporaryFile(dir=module.tmpdir, delete=False) as file:
        build_log.write_whole(client, build, file)
    module.atomic_move(file.name, dest)
    return dest


def present(module, client):
    if module.check_mode:
        module.exit_json(changed=True, msg="a build would be submitted")
    build, new = submit(module, client)
    if not module.params["wait"]:
        module.exit_json(changed=new, build=build)
    finish(module, client, wait_for(client, build, module.params["deadline_s"]), new)


def cancelled(module, client):
    build = client.get("/builds/" + module.params["id"])
    changed = build["state"] not in TERMINAL
    if changed and not module.check_mode:
        path = "/builds/%s/cancel" % build["id"]
        build = client.post(path, {"reason": module.params["reason"]})
        if module.params["wait"]:
            build = wait_for(client, build, module.params["deadline_s"])
    module.exit_json(changed=changed, build=build)


def main():
    module = AnsibleModule(
        argument_spec=hub.argument_spec(
            state={"type": "str", "choices": ["present", "cancelled"], "default": "present"},
            id={"type": "str"},
            name={"type": "str"},
            steps={"type": "list", "elements": "dict", "options": STEP},
            requires={"type": "dict", "options": REQUIRES},
            env={"type": "dict"},
            properties={"type": "dict"},
            priority={"type": "int"},
            timeout_s={"type": "float"},
            retry={"type": "dict", "options": {"on_loss": {"type": "int"}}},
            idempotency_key={"type": "str", "no_log": False},
            reason={"type": "str"},
            wait={"type": "bool", "default": True},
            deadline_s={"type": "float", "default": 3600},
            cancel_late={"type": "bool", "default": False},
            log_tail_lines={"type": "int", "default": 20},
            log_dest={"type": "path"},
        ),
        required_if=[("state", "present", ["steps"]), ("state", "cancelled", ["id"])],
        mutually_exclusive=[("id", "steps")],
        supports_check_mode=True,
    )
    hub.run(module, present if module.params["state"] == "present" else cancelled)


if __name__ == "__main__":
    main()
