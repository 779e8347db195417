"""What goes wrong with the hub as a process, and with its secrets; the operator mends it.

SettingsError (hostler_hub.errors)
├── HubRuns           another hub runs on the same state directory
└── NotOurs           a file of the hub belongs to another user
Exception
├── HubUnresponsive   a running hub does not answer, or does not end, within its deadline
└── SecretRefused     a secret reference cannot be resolved on this machine
"""

from __future__ import annotations

from hostler_hub.errors import SettingsError


class HubRuns(SettingsError):
    """Another hub holds this state directory's lock."""


class NotOurs(SettingsError):
    """Another user owns a file of the hub, or everybody may write it: it could be changed under the
    hub. The message names the file, the user, and what to do.
    """


class HubUnresponsive(Exception):
    """A hub holds the lock, but does not do what it should within its deadline."""


class SecretRefused(Exception):
    """A reference leads to no secret. The message names the reference, never a value."""
