"""The slots of an agent: as whom its builds run, and what separates them.

`make_slots` chooses by the configuration and by what the machine allows; see docs/security.md.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from hostler_agent.commands.slots.contract import AgentSlot, AgentSlots, Slot, Slots
from hostler_agent.config import AGENT
from hostler_agent.jobs.errors import JobError

if TYPE_CHECKING:
    from hostler_agent.config import Config

__all__ = ["AgentSlot", "AgentSlots", "Slot", "Slots", "make_slots"]

log = logging.getLogger(__name__)


def make_slots(config: Config) -> Slots:
    """The slots that the configuration asks for, as far as the machine allows: builds get users of
    their own only where that separates them, and else the agent's. For use in a thread.
    """
    own = AgentSlots(no_new_privileges=config.no_new_privileges)
    if config.run_as == AGENT:
        return own
    try:
        return _with_users(config)
    except (JobError, OSError) as error:
        log.warning("builds run as the agent's own user: %s", error)
        return own


def _with_users(config: Config) -> Slots:
    if sys.platform == "win32":
        from hostler_agent.jobs.errors import UsersUnavailable  # noqa: PLC0415

        raise UsersUnavailable("there are no users for builds on Windows")
    else:  # noqa: RET506 - type checkers know platforms by branches
        from hostler_agent.commands.slots import posix  # noqa: PLC0415
        from hostler_agent.jobs.posix.users import UserPool  # noqa: PLC0415

        pool = UserPool(config.build_uids, config.build_groups)
        return posix.make(config.workdir, pool, no_new_privileges=config.no_new_privileges)
