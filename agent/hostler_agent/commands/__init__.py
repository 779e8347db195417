"""The commands of Buildbot's worker protocol and two of Hostler's own, by name."""

from hostler_agent.commands.base import Command
from hostler_agent.commands.directories import CopyDirectory, MakeDirectories, RemoveDirectories
from hostler_agent.commands.download import DownloadFile
from hostler_agent.commands.end_lease import EndLease
from hostler_agent.commands.errors import BadArguments, CommandError
from hostler_agent.commands.protocols import Context, Settings
from hostler_agent.commands.queries import Glob, ListDir, RemoveFile, Stat
from hostler_agent.commands.shell import Shell
from hostler_agent.commands.tool_versions import ToolVersions
from hostler_agent.commands.upload import UploadDirectory, UploadFile

COMMANDS: dict[str, type[Command]] = {
    kind.name: kind
    for kind in (
        Shell,
        MakeDirectories,
        RemoveDirectories,
        CopyDirectory,
        Stat,
        Glob,
        ListDir,
        RemoveFile,
        UploadFile,
        UploadDirectory,
        DownloadFile,
        ToolVersions,
        EndLease,
    )
}

VERSIONS: dict[str, str] = dict.fromkeys(COMMANDS, "3.3")
"""The announced versions of the commands. Buildbot masters choose a command's arguments by them;
3.3 is `shell` with `max_lines`."""

__all__ = ["COMMANDS", "VERSIONS", "BadArguments", "Command", "CommandError", "Context", "Settings"]
