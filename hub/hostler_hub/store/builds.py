"""Builds, their leases and their steps.

Every change of a build's state is a compare-and-set here; what it returns or raises tells the
caller whether it was first (V8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hostler_hub.specs.states import BuildState
from hostler_hub.store.errors import StaleRow
from hostler_hub.store.tables import builds, instances, leases
from hostler_hub.store.tables import steps as step_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, RowMapping

OPEN_STATES = tuple(state for state in BuildState if not state.is_terminal)

_ID: sa.BindParameter[str] = sa.bindparam("b_id")
_ATTEMPT: sa.BindParameter[int] = sa.bindparam("b_attempt")
_LIMIT: sa.BindParameter[int] = sa.bindparam("b_limit")
# Spelled out rather than bound: a partial index serves only a condition the planner can read.
_QUEUED = builds.c.state == sa.literal_column(f"'{BuildState.QUEUED}'")
_RUNNING = builds.c.state == sa.literal_column(f"'{BuildState.RUNNING}'")
_OPEN = builds.c.state.in_([sa.literal_column(f"'{state}'") for state in OPEN_STATES])

_INSERT = sa.insert(builds)
_GET = sa.select(builds).where(builds.c.id == _ID)
_SUBMITTER = sa.select(builds.c.submitted_by).where(builds.c.id == _ID)
_BEGUN = sa.select(builds.c.id, builds.c.attempts).where(_OPEN, builds.c.attempts > 0)
_BY_KEY = sa.select(builds).where(
    builds.c.submitted_by == sa.bindparam("b_by"),
    builds.c.idempotency_key == sa.bindparam("b_key"),
)
_PAGE = sa.select(builds).order_by(builds.c.id.desc()).limit(_LIMIT)
_QUEUE = (
    sa.select(builds)
    .where(
        _QUEUED,
        sa.or_(builds.c.not_before.is_(None), builds.c.not_before <= sa.bindparam("b_now")),
    )
    .order_by(builds.c.priority.desc(), builds.c.id)
    .limit(_LIMIT)
)
_COUNT = sa.select(builds.c.state, sa.func.count()).where(_OPEN).group_by(builds.c.state)

_START = sa.update(builds).where(
    builds.c.id == _ID, _QUEUED, builds.c.attempts == sa.bindparam("b_attempts")
)
_FINISH = sa.update(builds).where(builds.c.id == _ID, _OPEN)
_FINISH_ATTEMPT = _FINISH.where(builds.c.attempts == _ATTEMPT)
_REQUEUE = sa.update(builds).where(builds.c.id == _ID, _RUNNING)
_REQUEUE_ATTEMPT = _REQUEUE.where(builds.c.attempts == _ATTEMPT)
_CANCEL = sa.update(builds).where(builds.c.id == _ID, _OPEN, builds.c.cancel_reason.is_(None))

_OPEN_LEASE = sa.insert(leases).values(
    process=sa.select(instances.c.process)
    .where(instances.c.id == sa.bindparam("b_instance"))
    .scalar_subquery()
)
_STRANDED = sa.select(leases.c.id).where(
    leases.c.instance == sa.bindparam("b_instance"),
    leases.c.ended_at.is_(None),
    leases.c.process != sa.bindparam("b_process"),
)
_OPEN_LEASES = sa.select(leases).where(leases.c.ended_at.is_(None)).order_by(leases.c.id)
_END_LEASE = sa.update(leases).where(leases.c.id == _ID, leases.c.ended_at.is_(None))

_INSERT_STEPS = sa.insert(step_rows)
_OF_ATTEMPT = sa.and_(step_rows.c.build == _ID, step_rows.c.attempt == _ATTEMPT)
_STEPS = sa.select(step_rows).where(_OF_ATTEMPT).order_by(step_rows.c.index)
_UPDATE_STEP = sa.update(step_rows).where(_OF_ATTEMPT, step_rows.c.index == sa.bindparam("b_index"))


def insert(c: Connection, row: dict[str, Any]) -> None:
    """Add a build. Raises RowRefused if its id or idempotency key exists already."""
    c.execute(_INSERT, row)


def get(c: Connection, build_id: str) -> RowMapping | None:
    """One build, or None."""
    return c.execute(_GET, {"b_id": build_id}).mappings().one_or_none()


def by_idempotency_key(c: Connection, submitted_by: str, key: str) -> RowMapping | None:
    """The build this submitter sent with this key, or None."""
    return c.execute(_BY_KEY, {"b_by": submitted_by, "b_key": key}).mappings().one_or_none()


def page(
    c: Connection,
    *,
    state: str | None = None,
    worker: str | None = None,
    limit: int,
    after: str | None = None,
) -> Sequence[RowMapping]:
    """Builds newest first, at most `limit`; `after` is the id the page before ended with."""
    query = _PAGE
    if state is not None:
        query = query.where(builds.c.state == state)
    if worker is not None:
        query = query.where(builds.c.worker == worker)
    if after is not None:
        query = query.where(builds.c.id < after)
    return c.execute(query, {"b_limit": limit}).mappings().all()


def queued(c: Connection, now: float, limit: int) -> Sequence[RowMapping]:
    """Builds that may start at `now`: highest priority first, then the oldest."""
    return c.execute(_QUEUE, {"b_now": now, "b_limit": limit}).mappings().all()


def count_by_state(c: Connection) -> dict[str, int]:
    """The number of builds that are queued and running. Finished builds are not counted: there are
    too many.
    """
    counts = {str(state): int(count) for state, count in c.execute(_COUNT)}
    return {state.value: counts.get(state, 0) for state in OPEN_STATES}


def start(c: Connection, build_id: str, worker: str, lease_row: dict[str, Any]) -> None:
    """Change a build from queued to running, as attempt `lease_row["epoch"]`, and add its lease.

    Raises StaleRow if the build is not queued or had another number of attempts, and RowRefused if
    the build has an unexpired lease (V5). Sets `attempts`, `worker` and `started_at`.
    """
    attempt = lease_row["epoch"]
    started = {
        "state": BuildState.RUNNING.value,
        "worker": worker,
        "attempts": attempt,
        "not_before": None,
    }
    started |= {"started_at": lease_row["acquired_at"], "b_id": build_id, "b_attempts": attempt - 1}
    if c.execute(_START, started).rowcount != 1:
        raise StaleRow("build", build_id, f"queued after {attempt - 1} attempts")
    c.execute(_OPEN_LEASE, {**lease_row, "b_instance": lease_row["instance"]})


def finish(
    c: Connection,
    build_id: str,
    state: BuildState,
    result_text: str | None,
    at: float,
    *,
    attempt: int | None = None,
) -> bool:
    """Change a build from queued or running to a terminal state. Returns False if another result
    was stored first (V8).

    With `attempt`, the report of an earlier attempt is refused in the same way (V5).
    """
    finished = {
        "state": state.value,
        "result_text": result_text,
        "finished_at": at,
        "b_id": build_id,
    }
    if attempt is None:
        return c.execute(_FINISH, finished).rowcount == 1
    return c.execute(_FINISH_ATTEMPT, finished | {"b_attempt": attempt}).rowcount == 1


def requeue(
    c: Connection,
    build_id: str,
    not_before: float | None,
    result_text: str | None,
    *,
    attempt: int | None = None,
) -> bool:
    """Change a running build back to queued, not to start before the instant `not_before` (V6).
    Returns False if it is not running.

    With `attempt`, only if that is the running attempt.
    """
    queued_again = {
        "state": BuildState.QUEUED.value,
        "not_before": not_before,
        "result_text": result_text,
    }
    queued_again |= {"worker": None, "started_at": None, "b_id": build_id}
    if attempt is None:
        return c.execute(_REQUEUE, queued_again).rowcount == 1
    return c.execute(_REQUEUE_ATTEMPT, queued_again | {"b_attempt": attempt}).rowcount == 1


def request_cancel(c: Connection, build_id: str, reason: str) -> bool:
    """Record a request to cancel the build. Returns False if the build has ended or the request
    exists.
    """
    return c.execute(_CANCEL, {"b_id": build_id, "cancel_reason": reason}).rowcount == 1


def open_leases(c: Connection) -> Sequence[RowMapping]:
    """Every unexpired lease, oldest first."""
    return c.execute(_OPEN_LEASES).mappings().all()


def are_leases_stranded(c: Connection, instance_id: str, process_id: str) -> bool:
    """Whether an instance has an unexpired lease that began under another process of its agent.

    The answer stays True until that lease ends, whatever attaches or is lost meanwhile (E9, K7).
    """
    key = {"b_instance": instance_id, "b_process": process_id}
    return c.execute(_STRANDED, key).first() is not None


def end_lease(c: Connection, lease_id: str, at: float, reason: str) -> bool:
    """Expire a lease. Returns False if it had ended before."""
    ended = {"b_id": lease_id, "ended_at": at, "end_reason": reason}
    return c.execute(_END_LEASE, ended).rowcount == 1


def insert_steps(c: Connection, rows: list[dict[str, Any]]) -> None:
    """Add an attempt's steps. All rows have the same keys."""
    if rows:
        c.execute(_INSERT_STEPS, rows)


def steps(c: Connection, build_id: str, attempt: int) -> Sequence[RowMapping]:
    """An attempt's steps, in order."""
    return c.execute(_STEPS, {"b_id": build_id, "b_attempt": attempt}).mappings().all()


def update_step(
    c: Connection, build_id: str, attempt: int, index: int, values: dict[str, Any]
) -> None:
    """Set columns of a step. Raises StaleRow if there is no such step."""
    key = {"b_id": build_id, "b_attempt": attempt, "b_index": index}
    if c.execute(_UPDATE_STEP, {**values, **key}).rowcount != 1:
        raise StaleRow("step", f"{build_id}/{attempt}/{index}", "known")


def begun(c: Connection) -> list[tuple[str, int]]:
    """The builds that are not over and have had a worker: id and latest attempt."""
    return [(row.id, row.attempts) for row in c.execute(_BEGUN)]


def submitter(c: Connection, build_id: str) -> str:
    """Who has submitted a build that is there."""
    return str(c.execute(_SUBMITTER, {"b_id": build_id}).scalar_one())
