# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A build as a playbook writes it, and as the hub takes it."""

from __future__ import annotations

from ansible_collections.hostler.fleet.plugins.module_utils import numbers

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
    # References, no values: see wrong_secret.
    "secrets": {"type": "dict", "no_log": False},
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
    "isolation": {"type": "list", "elements": "str", "choices": ["user", "container", "none"]},
}
SPEC = (
    "name",
    "requires",
    "env",
    "secrets",
    "limits",
    "properties",
    "priority",
    "timeout_s",
    "retry",
)


def given(options):
    """The options that were given, as the hub takes them."""
    return {key: numbers.plain(value) for key, value in options.items() if value is not None}


def text_values(env):
    """Variables as strings: YAML makes numbers and booleans of unquoted ones."""
    return {
        key: value if value is None or isinstance(value, str) else str(value)
        for key, value in env.items()
    }


def body(params, store):
    """The build specification by the module's options; store(path) gives a file's sha256."""
    body = given({key: params[key] for key in SPEC})
    for key in ("requires", "retry", "limits"):
        if key in body:
            body[key] = given(body[key])
    body["steps"] = [step_body(step, store) for step in params["steps"]]
    if "env" in body:
        body["env"] = text_values(body["env"])
    return body


def wrong_secret(params):
    """The first entry of `secrets` that is no reference: what is wrong, and the texts that it holds,
    which may be a secret. None if there is none.
    """
    places = [("secrets", params["secrets"])]
    for index, step in enumerate(params["steps"]):
        places.append(("steps[%d].secrets" % index, step["secrets"]))
    for where, secrets in places:
        for name, entry in (secrets or {}).items():
            keys = set(entry) if isinstance(entry, dict) else set()
            if "ref" not in keys or keys - {"ref", "as"}:
                text = "%s.%s must name a secret of the hub, {ref: NAME} or {ref: NAME, as: file}"
                values = entry.values() if isinstance(entry, dict) else [entry]
                return text % (where, name), [str(value) for value in values]
    return None


def step_body(step, store):
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
