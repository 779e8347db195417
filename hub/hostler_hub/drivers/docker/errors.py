"""What a Docker daemon's answers are raised as.

drivers.errors.ProviderFailed
  NotThere    the daemon knows no such object
  Conflict    the name is taken, or the object is being changed
  NoAnswer    the daemon did not answer
"""

from __future__ import annotations

from hostler_hub.drivers.errors import ProviderFailed


class NotThere(ProviderFailed):
    """The daemon knows no such object: positive evidence, unlike every other failure."""


class Conflict(ProviderFailed):
    """The name is taken, or the object is in the midst of another change."""


class NoAnswer(ProviderFailed):
    """The daemon did not answer. What it was asked for may be done all the same."""
