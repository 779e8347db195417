"""Hints for a worker's owner: which option to change, found by the text of the daemon's refusal.

The daemon describes a refusal in its own terms, which are not those of a worker's definition. A
text that no hint is known for is reported without one: a wrong hint would be worse than none.
"""

from __future__ import annotations

import re

NO_PYTHON = (
    "has the image Python 3.9 or newer? (driver_options.python); take an image that has, or name "
    "the path"
)
_ROOM = "free some there (docker system df says what takes it)"
_DISK = "the daemon's disk cannot do this; see driver_options.host_config.storage_opt"

_HINTS = (
    (r"no space left on device|disk quota exceeded", _ROOM),
    (r"range of cpus is from", "ask for fewer: driver_options.cpus"),
    (r"minimum memory limit", "ask for more: driver_options.memory"),
    (r"requested cpus are not available", "see driver_options.host_config.cpuset_cpus"),
    (r"unknown (or invalid )?runtime", "see driver_options.host_config.runtime"),
    (r"--storage-opt is supported only", _DISK),
    (r"unable to find (user|group) ", "name one of the image's: driver_options.user"),
    (r"network \S+ not found", "make it, or see driver_options.networks and network_mode"),
    (r"match the specified platform", "see driver_options.platform"),
    (r"invalid mount config", "see driver_options.volumes"),
    (r"HTTP request to an HTTPS server", "it wants driver_options.tls"),
    (r"setting rlimit", "see driver_options.host_config.ulimits"),
    (r'\bexec: "', NO_PYTHON),
)
_TABLE = tuple((re.compile(words, re.IGNORECASE), hint) for words, hint in _HINTS)


def with_hint(text: str) -> str:
    """The text of a refusal, followed by the hint for it if one is known."""
    for words, hint in _TABLE:
        if words.search(text):
            return f"{text}; {hint}"
    return text
