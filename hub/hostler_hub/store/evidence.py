"""Evidence of failed instances; the store keeps a limited number of the latest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hostler_hub.store.tables import evidence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, RowMapping

KEPT = 500

_PUT = sa.insert(evidence).inline()
_OF_WORKER = (
    sa.select(evidence)
    .where(evidence.c.worker == sa.bindparam("worker"))
    .order_by(evidence.c.id.desc())
    .limit(20)
)
_LATEST = sa.select(sa.func.max(evidence.c.id)).scalar_subquery()
_EXPIRE = sa.delete(evidence).where(evidence.c.id <= _LATEST - KEPT)


def put(c: Connection, row: dict[str, Any]) -> None:
    """Add evidence, and delete the oldest beyond KEPT."""
    c.execute(_PUT, row)
    c.execute(_EXPIRE)


def of_worker(c: Connection, worker: str) -> Sequence[RowMapping]:
    """The last twenty pieces of evidence of a worker, latest first."""
    return c.execute(_OF_WORKER, {"worker": worker}).mappings().all()
