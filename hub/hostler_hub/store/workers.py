"""Workers, and the ledger of instances: one row for every instance that was ever to be started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hostler_hub.store.errors import StaleRow
from hostler_hub.store.tables import instances, workers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, RowMapping

_IN_ONE_QUERY = 500  # below every database's limit on parameters

_NAME: sa.BindParameter[str] = sa.bindparam("b_name")
_ID: sa.BindParameter[str] = sa.bindparam("b_id")

_INSERT = sa.insert(workers)
_ALL = sa.select(workers).order_by(workers.c.name)
_UPDATE = sa.update(workers).where(
    workers.c.name == _NAME, workers.c.revision == sa.bindparam("b_revision")
)
_SET_FACTS = sa.update(workers).where(workers.c.name == _NAME)
_REDEFINE = sa.update(workers).where(workers.c.name == _NAME)
_DELETE = sa.delete(workers).where(workers.c.name == _NAME)

_OPEN = sa.insert(instances)
_END = sa.update(instances).where(instances.c.id == _ID, instances.c.ended_at.is_(None))
_BIND = sa.update(instances).where(
    instances.c.id == _ID,
    instances.c.ended_at.is_(None),
    sa.or_(
        instances.c.session_hash.is_(None),
        instances.c.session_hash == sa.bindparam("b_session_hash"),
    ),
)
_NOTE_PROCESS = sa.update(instances).where(instances.c.id == _ID)
_INSTANCE = sa.select(instances).where(instances.c.id == _ID)
_LIVE = sa.select(instances).where(instances.c.ended_at.is_(None)).order_by(instances.c.id)
_ENDED = sa.select(instances.c.id, instances.c.ended_at)
_KEPT = sa.select(instances).where(
    instances.c.kept.is_(sa.true()), instances.c.driver == sa.bindparam("b_driver")
)
_SINCE = (
    sa.select(instances)
    .where(instances.c.created_at >= sa.bindparam("b_at"))
    .order_by(instances.c.created_at)
)
_LAST_EPOCH = sa.select(sa.func.max(instances.c.epoch)).where(instances.c.worker == _NAME)


def insert(c: Connection, row: dict[str, Any]) -> None:
    """Add a worker. Raises RowRefused if the name is taken."""
    c.execute(_INSERT, row)


def load_all(c: Connection) -> Sequence[RowMapping]:
    """Every worker, by name."""
    return c.execute(_ALL).mappings().all()


def update(c: Connection, name: str, expected_revision: int, values: dict[str, Any]) -> int:
    """Set columns if the row is still at `expected_revision`. Returns the new revision.

    Raises StaleRow if the row has changed or is gone. The written function must let the exception
    out, so that nothing of the caller's transaction is stored.
    """
    revision = expected_revision + 1
    keyed = {**values, "revision": revision, "b_name": name, "b_revision": expected_revision}
    if c.execute(_UPDATE, keyed).rowcount != 1:
        raise StaleRow("worker", name, f"at revision {expected_revision}")
    return revision


def set_facts(c: Connection, name: str, facts: dict[str, Any]) -> bool:
    """Store the facts that the agent reported of its machine. Returns False if the worker is gone.

    Facts are not part of a transition, so they leave the row's revision unchanged.
    """
    return c.execute(_SET_FACTS, {"b_name": name, "facts": facts}).rowcount == 1


def redefine(
    c: Connection, name: str, definition: dict[str, Any], password_hash: str | None
) -> None:
    """Replace a worker's definition. The stored password stays if none is given."""
    values: dict[str, Any] = {"b_name": name, "definition": definition}
    if password_hash is not None:
        values["password_hash"] = password_hash
    if c.execute(_REDEFINE, values).rowcount != 1:
        raise StaleRow("worker", name, "known")


def delete(c: Connection, name: str) -> bool:
    """Delete a worker's row. Returns False if it does not exist. The ledger keeps the worker's
    instances.
    """
    return c.execute(_DELETE, {"b_name": name}).rowcount == 1


def open_instance(c: Connection, row: dict[str, Any]) -> None:
    """Record the intent to start an instance (V1). Raises RowRefused if the worker has a live one
    (V4).
    """
    c.execute(_OPEN, row)


def end_instance(
    c: Connection, instance_id: str, at: float, reason: str, *, kept: bool = False
) -> bool:
    """Record that an instance is proven gone. Returns False if that was recorded before.

    ``kept``: the instance's machine still exists, stopped.
    """
    ended = {"b_id": instance_id, "ended_at": at, "end_reason": reason, "kept": kept}
    return c.execute(_END, ended).rowcount == 1


def bind_session(c: Connection, instance_id: str, session_hash: str) -> bool:
    """Bind a live instance to the first session that attaches. Returns True for that session, now
    and later.

    False: another session used the token, or the instance has ended.
    """
    bound = {"b_id": instance_id, "session_hash": session_hash, "b_session_hash": session_hash}
    return c.execute(_BIND, bound).rowcount == 1


def note_process(c: Connection, instance_id: str, process_id: str | None) -> None:
    """Record which process of the agent is attached; None for a stock worker."""
    c.execute(_NOTE_PROCESS, {"b_id": instance_id, "process": process_id})


def instance(c: Connection, instance_id: str) -> RowMapping | None:
    """One instance of the ledger, live or ended, or None."""
    return c.execute(_INSTANCE, {"b_id": instance_id}).mappings().one_or_none()


def live_instances(c: Connection) -> Sequence[RowMapping]:
    """Every instance not yet proven gone, oldest first."""
    return c.execute(_LIVE).mappings().all()


def ended_at(c: Connection, ids: Sequence[str]) -> dict[str, float | None]:
    """When each of the instances ended; None for live ones. Ids that the ledger does not contain
    are left out.
    """
    found: dict[str, float | None] = {}
    for start in range(0, len(ids), _IN_ONE_QUERY):
        some = ids[start : start + _IN_ONE_QUERY]
        rows = c.execute(_ENDED.where(instances.c.id.in_(some)))
        found.update((row.id, row.ended_at) for row in rows)
    return found


def kept(c: Connection, driver: str) -> Sequence[RowMapping]:
    """Ended instances whose machines were kept, and are not known to be gone."""
    return c.execute(_KEPT, {"b_driver": driver}).mappings().all()


def note_not_kept(c: Connection, ids: Sequence[str]) -> None:
    """Record that the machines of these instances are gone, or used by other instances."""
    for start in range(0, len(ids), _IN_ONE_QUERY):
        some = ids[start : start + _IN_ONE_QUERY]
        c.execute(sa.update(instances).where(instances.c.id.in_(some)).values(kept=False))


def intended_since(c: Connection, at: float) -> Sequence[RowMapping]:
    """Every instance whose start was intended at that instant or later, oldest first."""
    return c.execute(_SINCE, {"b_at": at}).mappings().all()


def last_epoch(c: Connection, worker: str) -> int:
    """The highest epoch any worker of this name ever had, 0 for none.

    A worker defined again under an old name must start above it (V4).
    """
    return c.execute(_LAST_EPOCH, {"b_name": worker}).scalar_one() or 0
