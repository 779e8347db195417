"""Facts: what an agent reports of its machine, as far as builds may require it.

Facts are plain values, bounded in number and size (V15), and never the machine's environment (V14).
Buildbot's own worker sends them in the worker info itself, our agent in the report that the info
contains; facts_of() returns both in one form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hostler_agent.wire.extension import AgentReport

FACTS = 256
KEY_SIZE = 128
TEXT_SIZE = 4096
# Of all keys and texts together: they are in each list of workers.
FACTS_SIZE = 64 * 1024
# How much is kept of what an agent reports beside its facts.
COMMANDS = 256

# Always present, null where the machine does not report them, so any build may ask for them.
OS_KEYS = ("os_id", "os_id_like", "os_version_id", "os_version_codename")

# Keys of a worker's info that are not facts about the machine.
_OF_THE_AGENT = frozenset({"environ", "worker_commands", "hostler", "delete_leftover_dirs"})


def facts_of(info: Mapping[str, Any], report: AgentReport | None) -> dict[str, Any]:
    """The facts in a worker's info and in its agent's report, by name; the report wins.

    At most FACTS of them and FACTS_SIZE characters besides OS_KEYS, with texts cut to TEXT_SIZE
    characters.
    """
    told = {key: value for key, value in info.items() if key not in _OF_THE_AGENT}
    told |= report.facts if report is not None else {}
    if isinstance(told.get("numcpus"), int):
        told.setdefault("cpu_count", told["numcpus"])
    return {**dict.fromkeys(OS_KEYS), **_plain(told)}


def info_within_limits(info: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a worker's info that is kept while it is attached: its facts, and the names of
    its commands.
    """
    commands = info.get("worker_commands")
    known = list(commands)[:COMMANDS] if isinstance(commands, dict) else []
    names = {str(name)[:KEY_SIZE]: "" for name in known}
    basedir = info.get("basedir", ".")
    return {
        **_plain({key: value for key, value in info.items() if key not in _OF_THE_AGENT}),
        "basedir": basedir if isinstance(basedir, str) and len(basedir) <= TEXT_SIZE else ".",
        "worker_commands": names,
    }


def report_within_limits(report: AgentReport | None) -> AgentReport | None:
    """The part of an agent's report that is kept while it is attached."""
    if report is None:
        return None
    boot_id = report.boot_id and report.boot_id[:KEY_SIZE]
    process = report.process[:KEY_SIZE]
    return replace(
        report, boot_id=boot_id, process=process, commands=(), facts=_plain(report.facts)
    )


def _plain(told: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    size = 0
    for key, value in told.items():
        if not (value is None or isinstance(value, (str, int, float, bool))):
            continue
        name, shown = str(key)[:KEY_SIZE], _short(value)
        size += len(name) + (len(shown) if isinstance(shown, str) else 1)
        if len(plain) >= FACTS or size > FACTS_SIZE:
            break
        plain[name] = shown
    return plain


def _short(value: Any) -> Any:
    return value[:TEXT_SIZE] if isinstance(value, str) else value
