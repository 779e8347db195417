"""Why a notification was not delivered.

Exception
├── NotSent           a message was not delivered: the outbox tries again (the recipient's server)
└── EgressForbidden   a URL leads to an address that the hub must not call (the operator)
"""

from __future__ import annotations


class NotSent(Exception):
    """A message was not delivered, as far as the hub knows. The text is for people, no secrets.

    `unreachable`: no other message to this recipient would be delivered now either.
    """

    def __init__(self, reason: str, *, unreachable: bool) -> None:
        super().__init__(" ".join(reason.split())[:500])
        self.unreachable = unreachable


class EgressForbidden(Exception):
    """The host name resolves to an address that the hub must not call."""
