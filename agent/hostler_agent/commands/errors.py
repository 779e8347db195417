"""What a command raises.

CommandError           it cannot be done at all: the `complete` says why
└── BadArguments       because of its arguments; the text names the command and the argument
"""

from __future__ import annotations


class CommandError(Exception):
    """The text is one line, for the log of whoever gave the command."""


class BadArguments(CommandError):
    """An argument is missing, or of a kind it cannot be."""
