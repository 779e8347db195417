"""The login shells that accounts have: Bourne's, C's, fish, and a restricted one."""

from __future__ import annotations

import shutil

SHELLS = ("bash", "dash", "zsh", "fish", "tcsh", "rbash")
# Where each looks for its start-up file when it runs a command, below the home; dash has none.
START_UP_FILES = {
    "bash": ".bashrc",
    "rbash": ".bashrc",
    "zsh": ".zshenv",
    "fish": ".config/fish/config.fish",
    "tcsh": ".tcshrc",
}


def missing() -> str | None:
    """Which shells are missing on this machine and what to do about it, or None."""
    absent = [each for each in SHELLS if shutil.which(each) is None]
    if absent:
        return f"Login shells are missing ({', '.join(absent)}): apt-get install zsh fish tcsh"
    return None
