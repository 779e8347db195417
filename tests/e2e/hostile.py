"""What a hostile build tries, and what it gets: the table in docs/security.md is made of this.

Each attempt is a condition of a shell, run by a build that knows all that helps it: where
everything is, and the pids of its agent, its neighbour and its hub. `test_hostile_builds.py` runs
them for each isolation, and holds that exactly what is written here succeeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

ISOLATIONS = ("user", "user in a container", "container", "none")
UNPROVEN = ("Windows",)
"""Where no test has ever run on the real system."""


class Can(NamedTuple):
    """Whether an attempt succeeds, by isolation, in the order of ISOLATIONS."""

    user: bool
    user_in_a_container: bool
    container: bool
    none: bool


NOBODY = Can(False, False, False, False)
WHO_IS_THE_AGENT = Can(False, False, True, True)
ON_THE_MACHINE = Can(False, False, False, True)
WITHOUT_A_VIEW = Can(False, True, True, True)
EVERYBODY = Can(True, True, True, True)


@dataclass(frozen=True)
class Attempt:
    """`condition` is empty for what only the next build, or the hub, can see: the test tries that
    itself.
    """

    name: str
    what: str
    can: Can
    condition: str = ""
    note: str = ""


_TRACE = """
import ctypes, sys
sys.exit(ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), 0, 0) != 0)
"""

ATTEMPTS = (
    Attempt(
        "agent_token",
        "read the agent's configuration or token",
        WHO_IS_THE_AGENT,
        'cat "$INSTANCE/agent.json" || cat "$INSTANCE/token"',
    ),
    Attempt(
        "agent_session",
        "read the agent's session secret from its directory",
        NOBODY,
        'cat "$INSTANCE"/work/.hostler/session-*',
    ),
    Attempt(
        "agent_environment",
        "read the agent's environment",
        ON_THE_MACHINE,
        "cat /proc/$AGENT/environ",
    ),
    Attempt(
        "agent_memory",
        "open the agent's memory (`/proc/PID/mem`)",
        ON_THE_MACHINE,
        "(: < /proc/$AGENT/mem)",
    ),
    Attempt(
        "agent_descriptors",
        "see the agent's open files and sockets",
        WHO_IS_THE_AGENT,
        "ls /proc/$AGENT/fd",
    ),
    Attempt(
        "agent_trace",
        "trace the agent (ptrace)",
        ON_THE_MACHINE,
        f"python3 -c '{_TRACE}' $AGENT",
    ),
    Attempt(
        "agent_signal",
        "signal the agent: stop it, kill it",
        WHO_IS_THE_AGENT,
        "kill -0 $AGENT",
    ),
    Attempt(
        "agent_seen",
        "see that the agent runs, and its command line",
        WITHOUT_A_VIEW,
        "cat /proc/$AGENT/cmdline",
    ),
    Attempt(
        "agent_files",
        "write into the agent's own directories",
        WHO_IS_THE_AGENT,
        'touch "$INSTANCE/work/.hostler/planted" || touch "$INSTANCE/work/builds/planted"',
    ),
    Attempt(
        "agent_led",
        "have the agent send a file that the build cannot read, by a link that it uploads",
        NOBODY,
    ),
    Attempt(
        "neighbour_read",
        "read a neighbour's workspace",
        WHO_IS_THE_AGENT,
        'cat "$NEIGHBOUR_DIR/result"',
    ),
    Attempt(
        "neighbour_write",
        "change a neighbour's workspace",
        WHO_IS_THE_AGENT,
        'echo 0 > "$NEIGHBOUR_DIR/result"',
    ),
    Attempt(
        "neighbour_tmp",
        "read what a neighbour has in `/tmp`",
        WITHOUT_A_VIEW,
        "cat /tmp/hostler-neighbour",
        "in a container as far as the neighbour lets everybody read it",
    ),
    Attempt(
        "neighbour_environment",
        "read a neighbour's environment",
        WHO_IS_THE_AGENT,
        "cat /proc/$NEIGHBOUR/environ",
    ),
    Attempt(
        "neighbour_signal",
        "signal a neighbour's processes",
        WHO_IS_THE_AGENT,
        "kill -0 $NEIGHBOUR",
    ),
    Attempt(
        "neighbour_seen",
        "see that a neighbour's processes run, and their command lines",
        WITHOUT_A_VIEW,
        "cat /proc/$NEIGHBOUR/cmdline",
    ),
    Attempt(
        "hub_token",
        "read the hub's administrator's token (driver `local`)",
        ON_THE_MACHINE,
        'cat "$STATE/admin.token"',
    ),
    Attempt(
        "hub_database",
        "open the hub's database (driver `local`)",
        ON_THE_MACHINE,
        '(: < "$STATE/hub.sqlite3")',
    ),
    Attempt(
        "hub_signal",
        "signal the hub (driver `local`)",
        ON_THE_MACHINE,
        "kill -0 $HUB",
    ),
    Attempt(
        "cgroup",
        "leave its control group",
        WHO_IS_THE_AGENT,
        "for each in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do "
        '(echo $$ > "$each") && break; done',
        "what leaves is found, killed and named in the receipt",
    ),
    Attempt(
        "machine",
        "write where the machine's programs and settings are",
        WHO_IS_THE_AGENT,
        "touch /etc/hostler-planted && rm /etc/hostler-planted",
    ),
    Attempt(
        "stay",
        "leave a process running after its end",
        NOBODY,
    ),
    Attempt(
        "leave",
        "leave something in `/tmp` for the next build",
        WHO_IS_THE_AGENT,
    ),
)


def script(where: Mapping[str, str]) -> str:
    """A shell script that makes all attempts, and prints `NAME yes` or `NAME no` for each."""
    lines = [f"{name}='{value}'" for name, value in where.items()]
    for attempt in ATTEMPTS:
        if attempt.condition:
            tried = f"{{ {attempt.condition}; }} >/dev/null 2>&1"
            lines.append(
                f"if {tried}; then echo {attempt.name} yes; else echo {attempt.name} no; fi"
            )
    return "\n".join(lines)


def table() -> str:
    """The table of docs/security.md."""
    columns = [*(f"`{name}`" for name in ISOLATIONS), *UNPROVEN]
    lines = [f"| a build can | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for attempt in ATTEMPTS:
        cells = [
            *("**yes**" if can else "no" for can in attempt.can),
            *["*not proven*"] * len(UNPROVEN),
        ]
        what = attempt.what if not attempt.note else f"{attempt.what} ({attempt.note})"
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)
