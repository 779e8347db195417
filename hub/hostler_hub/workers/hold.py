"""The hold of a hub that was restored from a backup (P18).

Theory of operation. A backup knows nothing of what happened after it: instances that it shows may
be gone, others that it never heard of may run builds. So a restored hub adopts what it finds and
reports the differences, but it starts and destroys nothing until an operator confirms. The hold is
a row of the database, written by the restore; while it lasts every worker's policy carries it, so
that the lifecycle core orders no create and no destroy, and the reconciler holds its findings.
"""

from __future__ import annotations

from hostler_hub.runtime.clock import instant
from hostler_hub.store import hold
from hostler_hub.store.engine import Store


class Hold:
    """Whether the hub is in hold: ``reason`` says why, in a sentence, and is None if it is not."""

    def __init__(self, reason: str | None = None) -> None:
        self.reason = reason

    @classmethod
    async def load(cls, store: Store) -> Hold:
        """The hold that the database records, if it does."""
        made_at = await store.read(hold.load)
        return cls(None if made_at is None else _sentence(made_at))


def _sentence(made_at: float) -> str:
    return (
        f"the hub was restored from the backup of {instant(made_at)}; it starts and destroys"
        " nothing until that is confirmed"
    )
