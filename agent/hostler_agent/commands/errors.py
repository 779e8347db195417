"""Exceptions that commands raise.

CommandError           the command cannot be carried out: the `complete` says why
└── BadArguments       because of its arguments; the text names the command and the argument
WorkStopped            file work was interrupted or timed out: becomes a header and `rc` -1
TransferFailed         an upload or download failed: becomes a line on stderr and `rc` 1
"""

from __future__ import annotations


class CommandError(Exception):
    """The command cannot be carried out. The text is one line, for the log of the build."""


class BadArguments(CommandError):
    """An argument is missing or has a wrong value."""


class WorkStopped(Exception):
    """File work was interrupted or exceeded its time limit; the text says which."""


class TransferFailed(Exception):
    """An upload or download failed. The text goes to the command's stderr."""
