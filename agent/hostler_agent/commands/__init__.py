"""The commands of Buildbot's worker protocol: name -> class."""

from hostler_agent.commands.base import Command, Context, Settings
from hostler_agent.commands.errors import BadArguments, CommandError
from hostler_agent.commands.shell import Shell

COMMANDS: dict[str, type[Command]] = {kind.name: kind for kind in (Shell,)}

VERSIONS: dict[str, str] = dict.fromkeys(COMMANDS, "3.3")
"""Buildbot masters choose their arguments by these; 3.3 is `shell` with `max_lines`."""

__all__ = ["COMMANDS", "VERSIONS", "BadArguments", "Command", "CommandError", "Context", "Settings"]
