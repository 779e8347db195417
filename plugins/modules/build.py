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
  - Submits a build to the hub, waits for its result, and fetches its log and the files it made.
  - The module fails when the build ends in anything but V(success), and says why a build still waits at the deadline.
extends_documentation_fragment:
  - hostler.fleet.hub
  - hostler.fleet.build_steps
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
      facts:
        description:
          - Conditions that must all hold, one in each text, such as C(memory_mb >= 8000) or C(os_id in [debian, ubuntu]).
          - Operators are C(==), C(!=), C(<), C(<=), C(>), C(>=) and C(in). Numbers and texts are different, so the text
            12 is written C("12"). A fact that a worker does not have matches nothing.
        type: list
        elements: str
      isolation:
        description:
          - What must separate the build from its agent and from other builds, any of these. V(user) is a user of its
            own, V(container) an instance that is a container, V(none) nothing.
          - It counts what the worker's agent reports, and before its first start the worker's C(default_properties).
        type: list
        elements: str
        choices: [user, container, none]
  env:
    description:
      - Variables of all steps, which whoever may look at builds can read. For secrets there is O(secrets).
    type: dict
  secrets:
    description:
      - Secrets for the programs of all steps, by the variable that holds the value or the path of a file.
      - Each is a dictionary of C(ref), the secret's name in the hub's directory of secrets for builds, and C(as),
        which is V(env) (the default) or V(file). Values never pass through the playbook.
      - The hub's owner says whose builds may use a secret. A step with more than it needs can be given less by naming
        secrets in O(steps[].secrets) only.
    type: dict
  limits:
    description: What the program of each step may use, where the step does not say otherwise.
    type: dict
    suboptions:
      memory_mb:
        description: Memory in MiB, at least 16.
        type: int
      processes:
        description: How many processes and threads there may be at once.
        type: int
      cpu_percent:
        description: Processor time, in percent of all the worker's processors.
        type: int
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
  artifacts_dest:
    description: A directory for the artifacts of a build that succeeded, on the machine where the module runs.
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
        limits: {memory_mb: 4096}
    limits: {processes: 500, cpu_percent: 50}
    deadline_s: 1800
    log_dest: /tmp/nightly.log

- name: Build from a tarball made here, and fetch what came of it
  hostler.fleet.build:
    requires:
      labels: [linux]
    steps:
      - name: source
        download: {to: source.tar.gz, src: dist/source.tar.gz}
      - name: settings
        download: {to: build.conf, content: "jobs = 4\n", mode: "0600"}
      - name: unpack
        command: [tar, -xzf, source.tar.gz]
      - name: version
        set_property: {name: version, command: [cat, source/VERSION]}
      - name: make
        command: [make, all, test]
        workdir: source
        logfiles:
          tests: {filename: tests/run.log}
      - name: packages
        upload_glob: {pattern: source/dist/*.whl, name: wheels}
      - name: reports
        upload_directory: {from: source/reports, compress: gz}
        always_run: true
    artifacts_dest: /tmp/product
  register: made

- name: Say what was built
  ansible.builtin.debug:
    msg: "{{ made.build.properties.version }}: {{ made.artifacts | map(attribute='path') | join(', ') }}"

- name: Publish with a token that only this step has
  hostler.fleet.build:
    requires:
      labels: [linux]
    steps:
      - {name: make, command: [make, dist]}
      - name: publish
        command: [make, publish]
        secrets:
          UPLOAD_TOKEN: {ref: upload-token}
          SSH_KEY_FILE: {ref: deploy-key, as: file}

- name: Build where there is memory enough
  hostler.fleet.build:
    requires:
      labels: [linux]
      facts:
        - memory_mb >= 8000
        - os_id in [debian, ubuntu]
    steps:
      - {name: make, command: [make, all]}

- name: Keep house on a worker
  hostler.fleet.build:
    requires: {worker: local-1}
    steps:
      - {name: make room, rmdir: [/var/cache/product/old]}
      - {name: keep the last one, copy: {from: /var/cache/product/new, to: /var/cache/product/old}}
      - {name: start anew, mkdir: [/var/cache/product/new]}
      - {name: take the mark away, remove: /var/cache/product/stale, halt_on_failure: false}
      - {name: how large, stat: /var/cache/product/index}
      - {name: what there is, listdir: /var/cache/product/old}
      - {name: left over, glob: "/var/cache/product/**/*.tmp"}

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
  contains:
    id:
      description: The build's id.
      type: str
      returned: always
    name:
      description: What it is called.
      type: str
      returned: always
    state:
      description: V(queued), V(running), V(success), V(failure), V(exception) or V(cancelled).
      type: str
      returned: always
    spec:
      description: The build as it was submitted.
      type: dict
      returned: always
    worker:
      description: The worker that runs or ran it.
      type: str
      returned: always
    attempts:
      description: How often it was started.
      type: int
      returned: always
    submitted_by:
      description: Who submitted it, by the token's name.
      type: str
      returned: always
    submitted_at:
      description: When it was submitted.
      type: str
      returned: always
    started_at:
      description: When its latest attempt began.
      type: str
      returned: always
    finished_at:
      description: When it had its result.
      type: str
      returned: always
    result_text:
      description: How it ended, in a sentence.
      type: str
      returned: always
    why:
      description:
        - Why it still waits, in a sentence. A list says it of those builds that are next, 20 at most and fewer in a
          large fleet; a single build's answer always does.
      type: str
      returned: always
    properties:
      description: Those it was submitted with, and over them those that its steps have set.
      type: dict
      returned: always
    steps:
      description: The steps of its latest attempt with their results; a list of builds leaves them out.
      type: list
      elements: dict
      returned: always
    why_workers:
      description:
        - For each worker all reasons why it does not run the build, and a remedy for each; only in a single build's
          answer, and only while it waits.
      type: list
      elements: dict
      returned: while it waits
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
artifacts:
  description: The files that were written beneath O(artifacts_dest), as the hub tells them.
  returned: when O(artifacts_dest) is given and the build succeeded
  type: list
  elements: dict
  contains:
    path:
      description: Its path among the build's artifacts.
      type: str
      returned: always
    size_bytes:
      description: Its size.
      type: int
      returned: always
    sha256:
      description: The SHA-256 of its content, in hexadecimal digits.
      type: str
      returned: always
    step:
      description: The index of the step that gave it.
      type: int
      returned: always
    modified_at:
      description: When it was modified on the worker.
      type: str
      returned: always
    stored_at:
      description: When the hub had it.
      type: str
      returned: always
  sample: [{path: wheels/product-1.0.whl, size_bytes: 52311, sha256: 9f86d081884c7d65...}]
"""

import os
import tempfile
import time
import uuid

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import (
    artifacts,
    build_log,
    build_spec,
    hub,
    numbers,
)
from ansible_collections.hostler.fleet.plugins.module_utils.errors import HubUnreachable

TERMINAL = ("success", "failure", "exception", "cancelled")
POLL_S = 20


def refuse_values(module):
    """Refuse a secret that is given by its value, without showing it."""
    wrong = build_spec.wrong_secret(module.params)
    if wrong:
        text, values = wrong
        module.no_log_values.update(values)
        module.fail_json(msg=text)


def submit(module, client):
    """Returns the build and whether it is new."""
    # A key of our own lets a refused connection be tried again without building twice.
    key = module.params["idempotency_key"] or "module-%s" % uuid.uuid4()
    body = build_spec.body(module.params, lambda path: store(module, client, path))
    return client.post_new("/builds", body, {"Idempotency-Key": key})


def store(module, client, path):
    try:
        return artifacts.store(client, path)
    except OSError as error:
        module.fail_json(msg="src: %s cannot be read: %s" % (path, error.strerror or error))


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
        if module.params["artifacts_dest"]:
            answer["artifacts"] = save_artifacts(module, client, build)
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


def save_artifacts(module, client, build):
    dest = module.params["artifacts_dest"]
    try:
        return artifacts.fetch_all(module, client, build["id"], dest)
    except OSError as error:
        why = "%s: %s" % (dest, error.strerror or error)
        module.fail_json(msg="artifacts_dest: " + why, build=build)


def present(module, client):
    refuse_values(module)
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
            steps={
                "type": "list",
                "elements": "dict",
                "options": build_spec.STEP,
                "mutually_exclusive": [tuple(build_spec.KINDS)],
                "required_one_of": [tuple(build_spec.KINDS)],
            },
            requires={"type": "dict", "options": build_spec.REQUIRES},
            env={"type": "dict"},
            secrets={"type": "dict", "no_log": False},
            limits={"type": "dict", "options": build_spec.LIMITS},
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
            artifacts_dest={"type": "path"},
        ),
        required_if=[("state", "present", ["steps"]), ("state", "cancelled", ["id"])],
        mutually_exclusive=[("id", "steps")],
        supports_check_mode=True,
    )
    hub.run(module, present if module.params["state"] == "present" else cancelled)


if __name__ == "__main__":
    main()
