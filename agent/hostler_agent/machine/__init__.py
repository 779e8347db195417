"""The machine: functions that each platform implements under the same name. This module chooses the
platform.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from hostler_agent.machine.windows import (
        CREATE_FLAGS,
        HAS_TERMINALS,
        PRIVACY_HINT,
        READ_FLAGS,
        boot_id,
        cpu_count,
        forbid_inspection,
        give_file,
        guard_against_oom,
        has_long_paths,
        is_own_directory,
        keep_owner,
        keep_secret,
        kept_secret,
        make_fifo,
        memory_directories,
        memory_mb,
        name,
        on_signal,
        open_log,
        os_release,
        output_decoder,
        power_off,
        shell,
        stop_signals,
        variable_name,
    )
    from hostler_agent.win32.security import is_private
else:
    from hostler_agent.machine.descriptor_store import keep_secret, kept_secret
    from hostler_agent.machine.posix import (
        CREATE_FLAGS,
        HAS_TERMINALS,
        PRIVACY_HINT,
        READ_FLAGS,
        boot_id,
        cpu_count,
        forbid_inspection,
        give_file,
        guard_against_oom,
        has_long_paths,
        is_own_directory,
        is_private,
        keep_owner,
        make_fifo,
        memory_directories,
        memory_mb,
        name,
        on_signal,
        open_log,
        os_release,
        output_decoder,
        power_off,
        shell,
        stop_signals,
        variable_name,
    )

__all__ = [
    "CREATE_FLAGS",
    "HAS_TERMINALS",
    "PRIVACY_HINT",
    "READ_FLAGS",
    "boot_id",
    "cpu_count",
    "forbid_inspection",
    "give_file",
    "guard_against_oom",
    "has_long_paths",
    "is_own_directory",
    "is_private",
    "keep_owner",
    "keep_secret",
    "kept_secret",
    "make_fifo",
    "memory_directories",
    "memory_mb",
    "name",
    "on_signal",
    "open_log",
    "os_release",
    "output_decoder",
    "power_off",
    "shell",
    "stop_signals",
    "variable_name",
]
