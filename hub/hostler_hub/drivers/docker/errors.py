"""Exceptions for the answers of a Docker daemon.

drivers.errors.ProviderFailed
  NotThere    the daemon knows no such object
  Conflict    the name is taken, or the object is being changed
  NoAnswer    the daemon did not answer
"""

from __future__ import annotations

from hostler_hub.drivers.errors import ProviderFailed


class NotThere(ProviderFailed):
    """The daemon knows no such object. Unlike every other failure, this proves that it is gone."""


class Conflict(ProviderFailed):
    """The name is taken, or the daemon is in the middle of another change of the object."""


class NoAnswer(ProviderFailed):
    """The daemon did not answer. The request may have been carried out all the same."""
