"""The client token: what the call that starts an instance carries, and EC2 keeps of it for ever.

A repeated RunInstances of one token answers with the instance that the first one made (P1). EC2
shows the token with the instance and lets nobody change it or copy it, unlike tags: it proves that
this hub's call made the instance.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hostler_agent.instances.mark import Mark

_TOKEN = re.compile(r"([0-9A-HJKMNP-TV-Z]{26})\.([0-9]+)\.[0-9]+")


@dataclass(frozen=True, slots=True)
class Origin:
    """The instance, and its epoch, that a machine was made for. A spare serves later ones too."""

    instance: str
    epoch: int

    @classmethod
    def of_token(cls, token: str) -> Origin | None:
        """Read a client token. Returns None for one that `token` has not made."""
        found = _TOKEN.fullmatch(token)
        return cls(found[1], int(found[2])) if found else None

    def token(self, attempt: int) -> str:
        """The client token of one attempt; each is spent once it has been refused."""
        return f"{self.instance}.{self.epoch}.{attempt}"

    def made(self, mark: Mark) -> bool:
        """Whether a machine of this origin can carry the mark without having been a spare."""
        return (self.instance, self.epoch) == (mark.instance, mark.epoch)
