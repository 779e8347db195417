"""What the agent asks of its machine: the same functions for each platform, chosen here."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from hostler_agent.machine.windows import (
        boot_id,
        cpu_count,
        guard_against_oom,
        is_private,
        memory_mb,
        name,
        on_signal,
        stop_signals,
    )
else:
    from hostler_agent.machine.posix import (
        boot_id,
        cpu_count,
        guard_against_oom,
        is_private,
        memory_mb,
        name,
        on_signal,
        stop_signals,
    )

__all__ = [
    "boot_id",
    "cpu_count",
    "guard_against_oom",
    "is_private",
    "memory_mb",
    "name",
    "on_signal",
    "stop_signals",
]
