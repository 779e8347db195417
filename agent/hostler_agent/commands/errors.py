"""What a command raises.

CommandError           the command cannot be carried out: the `complete` says why
└── BadArguments       because of its arguments; the text names the command and the argument
WorkStopped            file work was interrupted or timed out: becomes a header and `rc` -1
TransferFailed         an upload or download failed: becomes a line on stderr and `rc` 1
"""

from __future__ import annotations


class CommandError(Exception):
    """The text is one line, for the log of whoever gave the command."""


class BadArguments(CommandError):
    """An argument is missing, or of a kind it cannot be."""


class WorkStopped(Exception):
    """The work was interrupted, or took too long; the text says which."""


class TransferFailed(Exception):
    """The text goes to the command's stderr."""
