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
    description:
      - What is done, in order. Required for O(state=present).
      - Each step is of one kind. Paths are the worker's, absolute or within the build's own workspace.
    type: list
    elements: dict
    suboptions:
      name:
        description: What the step is called.
        type: str
        required: true
      command:
        description: Run a program. A list of arguments, or a string for the worker's shell.
        type: raw
      mkdir:
        description: Make directories, and those above them.
        type: list
        elements: str
      rmdir:
        description: Remove directories with all that is in them.
        type: list
        elements: str
      copy:
        description: Copy a directory or file of the worker to a place where nothing is yet.
        type: dict
        suboptions:
          from:
            description: What is copied.
            type: str
            required: true
          to:
            description: Where to.
            type: str
            required: true
      remove:
        description: Remove a file.
        type: str
      stat:
        description: Look at a file. The step's C(result) has the ten numbers of a POSIX stat as C(stat).
        type: str
      glob:
        description: Find files by a shell's pattern, where C(**) stands for any depth. The step's C(result) has C(files).
        type: str
      listdir:
        description: List a directory. The step's C(result) has C(files).
        type: str
      upload:
        description: Make an artifact of a file.
        type: dict
        suboptions:
          from:
            description: The file.
            type: str
            required: true
          name:
            description: The artifact's path. By default the last part of O(steps[].upload.from).
            type: str
          keep_stamp:
            description: Whether to keep the time of its last change. The hub's default is V(false).
            type: bool
          max_size_bytes:
            description: A larger file fails the step. The hub's default, and most, is 1 GiB.
            type: int
      upload_directory:
        description: Make artifacts of all files in a directory, which must hold no links.
        type: dict
        suboptions:
          from:
            description: The directory.
            type: str
            required: true
          name:
            description: The artifacts' folder. By default the last part of O(steps[].upload_directory.from).
            type: str
          compress:
            description: How it is packed on its way.
            type: str
            choices: [gz, bz2]
      upload_glob:
        description:
          - Make artifacts of the files and directories that match; none is a failure.
          - They are named from the pattern's first part with a wildcard on.
        type: dict
        suboptions:
          pattern:
            description: A shell's pattern, where C(**) stands for any depth.
            type: str
            required: true
          name:
            description: The artifacts' folder.
            type: str
      download:
        description: Give the worker a file, by exactly one of its text, a file here, or the hash of one that is stored.
        type: dict
        suboptions:
          to:
            description: Where to.
            type: str
            required: true
          content:
            description: The text. Set C(no_log) on the task when it is a secret.
            type: str
          src:
            description: A file on the machine where the module runs, which it stores on the hub.
            type: path
          file:
            description: The sha256 of a file that is stored on the hub.
            type: str
          mode:
            description: Its permissions, as octal digits in a string such as C("0755").
            type: raw
      set_property:
        description:
          - Run a program whose standard output becomes a property of the build.
          - O(steps[].workdir), O(steps[].env) and the like hold for it, too.
        type: dict
        suboptions:
          command:
            description: A list of arguments, or a string for the worker's shell.
            type: raw
            required: true
          name:
            description: The property.
            type: str
          lines:
            description: Instead of O(steps[].set_property.name), each line C(NAME=VALUE) of the output is a property.
            type: bool
          strip:
            description: Whether to take away the space around values. The hub's default is V(true).
            type: bool
      workdir:
        description: Where it runs, absolute or within the build's own workspace.
        type: str
      env:
        description: Variables of this step over those of the build. A null takes a variable away.
        type: dict
      use_pty:
        description: Whether the program gets a terminal. The hub's default is V(false).
        type: bool
      initial_stdin:
        description: What the program reads. Set C(no_log) on the task when it is a secret.
        type: str
      logfiles:
        description:
          - Files that the program writes, for the step's log, by name.
          - Each is a dictionary of C(filename), relative to O(steps[].workdir), and C(follow), which skips what it held before.
        type: dict
      log_environment:
        description: Whether the log begins with the environment. The hub's default is V(false).
        type: bool
      limits:
        description:
          - What all processes of the program may use together, over O(limits) of the build, one by one.
          - An agent that cannot enforce one of them, and a stock Buildbot worker, does not start the program.
        type: dict
        suboptions:
          memory_mb:
            description: Memory in MiB, at least 16. Who takes more is ended by the kernel, and the result says so.
            type: int
          processes:
            description: How many processes and threads there may be at once.
            type: int
          cpu_percent:
            description: Processor time, in percent of all the worker's processors.
            type: int
      batch_files:
        description:
          - Whether a list as C(command) may name a C(.bat) or C(.cmd) file on Windows, whose arguments C(cmd.exe) reads once more.
          - The hub's default is V(false). A stock Buildbot worker starts them in any case.
        type: bool
      timeout_s:
        description: Seconds without output, or without progress of a transfer, after which the step is ended; 0 for never. The hub's default is 1200.
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
      facts:
        description:
          - Conditions that must all hold, one in each text, such as C(memory_mb >= 8000) or C(os_id in [debian, ubuntu]).
          - Operators are C(==), C(!=), C(<), C(<=), C(>), C(>=) and C(in). Numbers and texts are different, so the text
            12 is written C("12"). A fact that a worker does not have matches nothing.
        type: list
        elements: str
  env:
    description:
      - Variables of all steps. Set C(no_log) on the task when there is a secret among them.
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
    hub,
    numbers,
)
from ansible_collections.hostler.fleet.plugins.module_utils.errors import HubUnreachable

TERMINAL = ("success", "failure", "exception", "cancelled")
POLL_S = 20
# Zero in a playbook is the hub's null: no limit, no polite signal.
ZERO_IS_NULL = ("timeout_s", "sigterm_time_s")

KINDS = {
    "command": {"type": "raw"},
    "mkdir": {"type": "list", "elements": "str"},
    "rmdir": {"type": "list", "elements": "str"},
    "copy": {
        "type": "dict",
        "options": {
            "from": {"type": "str", "required": True},
            "to": {"type": "str", "required": True},
        },
    },
    "remove": {"type": "str"},
    "stat": {"type": "str"},
    "glob": {"type": "str"},
    "listdir": {"type": "str"},
    "upload": {
        "type": "dict",
        "options": {
            "from": {"type": "str", "required": True},
            "name": {"type": "str"},
            "keep_stamp": {"type": "bool"},
            "max_size_bytes": {"type": "int"},
        },
    },
    "upload_directory": {
        "type": "dict",
        "options": {
            "from": {"type": "str", "required": True},
            "name": {"type": "str"},
            "compress": {"type": "str", "choices": ["gz", "bz2"]},
        },
    },
    "upload_glob": {
        "type": "dict",
        "options": {"pattern": {"type": "str", "required": True}, "name": {"type": "str"}},
    },
    "download": {
        "type": "dict",
        "options": {
            "to": {"type": "str", "required": True},
            "content": {"type": "str"},
            "src": {"type": "path"},
            "file": {"type": "str"},
            "mode": {"type": "raw"},
        },
        "mutually_exclusive": [("content", "src", "file")],
        "required_one_of": [("content", "src", "file")],
    },
    "set_property": {
        "type": "dict",
        "options": {
            "command": {"type": "raw", "required": True},
            "name": {"type": "str"},
            "lines": {"type": "bool"},
            "strip": {"type": "bool"},
        },
    },
}
LIMITS = {
    "memory_mb": {"type": "int"},
    "processes": {"type": "int"},
    "cpu_percent": {"type": "int"},
}
STEP = {
    "name": {"type": "str", "required": True},
    **KINDS,
    "workdir": {"type": "str"},
    "env": {"type": "dict"},
    "use_pty": {"type": "bool"},
    "initial_stdin": {"type": "str"},
    "logfiles": {"type": "dict"},
    "log_environment": {"type": "bool"},
    "limits": {"type": "dict", "options": LIMITS},
    "batch_files": {"type": "bool"},
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
    "facts": {"type": "list", "elements": "str"},
}
SPEC = ("name", "requires", "env", "limits", "properties", "priority", "timeout_s", "retry")


def given(options):
    """The options that were given, as the hub takes them."""
    return {key: numbers.plain(value) for key, value in options.items() if value is not None}


def text_values(env):
    """Variables as strings: YAML makes numbers and booleans of unquoted ones."""
    return {
        key: value if value is None or isinstance(value, str) else str(value)
        for key, value in env.items()
    }


def spec(params, store):
    """The build specification by the module's options; store(path) gives a file's sha256."""
    body = given({key: params[key] for key in SPEC})
    for key in ("requires", "retry", "limits"):
        if key in body:
            body[key] = given(body[key])
    body["steps"] = [step_spec(step, store) for step in params["steps"]]
    if "env" in body:
        body["env"] = text_values(body["env"])
    return body


def step_spec(step, store):
    body = given(step)
    for kind in (*KINDS, "limits"):
        if isinstance(body.get(kind), dict):
            body[kind] = given(body[kind])
    if "src" in body.get("download", {}):
        body["download"]["file"] = store(body["download"].pop("src"))
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
    body = spec(module.params, lambda path: store(module, client, path))
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
                "options": STEP,
                "mutually_exclusive": [tuple(KINDS)],
                "required_one_of": [tuple(KINDS)],
            },
            requires={"type": "dict", "options": REQUIRES},
            env={"type": "dict"},
            limits={"type": "dict", "options": LIMITS},
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
