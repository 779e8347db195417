"""The row by which a restored database keeps its hub in hold (P18), see workers/hold.py."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hostler_hub.store import meta

if TYPE_CHECKING:
    from sqlalchemy import Connection

KEY = "hold"


def value(made_at: float) -> str:
    """The row's value; `made_at` is the instant of the backup (Unix time)."""
    return json.dumps({"made_at": made_at})


def load(c: Connection) -> float | None:
    """The instant of the backup that the database was restored from; None without a hold."""
    found = meta.get(c, KEY)
    return None if found is None else float(json.loads(found)["made_at"])


def lift(c: Connection) -> None:
    """End the hold."""
    meta.delete(c, KEY)
