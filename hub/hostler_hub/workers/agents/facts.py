"""Facts: what an agent reports of its machine, as far as builds may require it.

Facts are plain values, bounded in number and size (V15), and never the machine's environment (V14).
Buildbot's own worker sends them in the worker info itself, our agent in the report that the info
contains; facts_of() returns both in one form.

The isolation of builds is always among them: an agent that does not report a known one, such as
Buildbot's own worker, gives none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hostler_agent.wire.extension import AgentReport
from hostler_hub.specs.isolation import FACT, Isolation, isolation_of

FACTS = 256
KEY_SIZE = 128
TEXT_SIZE = 4096

# Always present, null where the machine does not report them, so any build may ask for them.
OS_KEYS = ("os_id", "os_id_like", "os_version_id", "os_version_codename")

# Keys of a worker's info that are not facts about the machine.
_OF_THE_AGENT = frozenset({"environ", "worker_commands", "hostler", "delete_leftover_dirs"})


def facts_of(info: Mapping[str, Any], report: AgentReport | None) -> dict[str, Any]:
    """The facts in a worker's info and in its agent's report, by name; the report wins.

    At most FACTS of them besides OS_KEYS and the isolation, with texts cut to TEXT_SIZE characters.
    """
    told = {key: value for key, value in info.items() if key not in _OF_THE_AGENT}
    reported = report.facts if report is not None else {}
    told |= reported
    if isinstance(told.get("numcpus"), int):
        told.setdefault("cpu_count", told["numcpus"])
    plain = {
        str(key)[:KEY_SIZE]: _short(value)
        for key, value in told.items()
        if value is None or isinstance(value, (str, int, float, bool))
    }
    some = dict(list(plain.items())[:FACTS])
    isolation = isolation_of(reported) or Isolation.NONE
    return {**dict.fromkeys(OS_KEYS), **some, FACT: isolation.value}


def _short(value: Any) -> Any:
    return value[:TEXT_SIZE] if isinstance(value, str) else value
