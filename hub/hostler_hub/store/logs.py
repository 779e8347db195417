"""Step logs (V7): one run of bytes per step, appended in chunks that never change.

`steps.log_size_bytes` is the durable end. It moves by compare-and-set in the transaction that
inserts the chunk, so two senders of the same bytes cannot both store them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from hostler_hub.store.errors import LogGap, StaleRow
from hostler_hub.store.tables import builds, log_chunks, steps

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.sql.elements import ColumnElement


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of one stream ("stdout", "stderr", "header") at an offset into the step's log."""

    offset: int
    stream: str
    data: bytes


def _of_step(table: sa.Table) -> ColumnElement[bool]:
    return sa.and_(
        table.c.build == sa.bindparam("b_build"),
        table.c.attempt == sa.bindparam("b_attempt"),
        table.c.index == sa.bindparam("b_index"),
    )


_END = sa.select(steps.c.log_size_bytes).where(_of_step(steps))
_EXTEND = sa.update(steps).where(
    _of_step(steps), steps.c.log_size_bytes == sa.bindparam("b_offset")
)
_CUT = sa.update(steps).where(_of_step(steps), steps.c.log_cut_at.is_(None))
_SIZES = (
    sa.select(builds.c.submitted_by, sa.func.sum(steps.c.log_size_bytes).label("size_bytes"))
    .join(builds, builds.c.id == steps.c.build)
    .group_by(builds.c.submitted_by)
)
_INSERT = sa.insert(log_chunks)
_FIRST = (
    sa.select(sa.func.coalesce(sa.func.max(log_chunks.c.offset), 0))
    .where(_of_step(log_chunks), log_chunks.c.offset <= sa.bindparam("b_offset"))
    .scalar_subquery()
)
_CHUNKS = (
    sa.select(log_chunks.c.offset, log_chunks.c.stream, log_chunks.c.data)
    .where(
        _of_step(log_chunks),
        log_chunks.c.offset >= _FIRST,
        log_chunks.c.offset < sa.bindparam("b_limit"),
    )
    .order_by(log_chunks.c.offset)
)


def append(
    c: Connection, build: str, attempt: int, index: int, offset: int, stream: str, data: bytes
) -> int:
    """Store log bytes that begin at `offset`; returns the durable end after it.

    Bytes below the durable end were stored before and are dropped, so a resend changes nothing
    (K8). Raises LogGap when `offset` lies beyond the durable end, StaleRow for an unknown step.
    """
    step = {"b_build": build, "b_attempt": attempt, "b_index": index}
    if not data or not _extend(c, step, offset, len(data)):
        end = c.execute(_END, step).scalar_one_or_none()
        if end is None:
            raise StaleRow("step", f"{build}/{attempt}/{index}", "known")
        if offset > end:
            raise LogGap(offset, end)
        data = data[end - offset :]
        offset = end
        if not data or not _extend(c, step, offset, len(data)):
            return int(end)
    chunk = {"build": build, "attempt": attempt, "index": index, "offset": offset}
    c.execute(_INSERT, {**chunk, "stream": stream, "data": data})
    return offset + len(data)


def append_last(
    c: Connection,
    build: str,
    attempt: int,
    index: int,
    offset: int,
    stream: str,
    data: bytes,
    cut_at: int,
) -> int:
    """Store the end of a log that a quota ends at ``cut_at``, and note where (see append)."""
    end = append(c, build, attempt, index, offset, stream, data)
    cut = {"b_build": build, "b_attempt": attempt, "b_index": index, "log_cut_at": cut_at}
    c.execute(_CUT, cut)
    return end


def sizes(c: Connection) -> list[tuple[str, int]]:
    """Each submitter of builds, and the bytes of their steps' logs."""
    return [(row.submitted_by, int(row.size_bytes)) for row in c.execute(_SIZES)]


def require(c: Connection, build: str, attempt: int, index: int, end: int) -> None:
    """Raise LogGap if the log is shorter than `end`."""
    step = {"b_build": build, "b_attempt": attempt, "b_index": index}
    durable = c.execute(_END, step).scalar_one_or_none() or 0
    if durable < end:
        raise LogGap(end, durable)


def _extend(c: Connection, step: dict[str, object], offset: int, size_bytes: int) -> bool:
    """Move the durable end from `offset` on by `size_bytes`. Returns False if the log does not end
    at `offset`.
    """
    moved = {**step, "b_offset": offset, "log_size_bytes": offset + size_bytes}
    return c.execute(_EXTEND, moved).rowcount == 1


def chunks(
    c: Connection, build: str, attempt: int, index: int, offset: int, limit: int
) -> list[Chunk]:
    """At most `limit` bytes of the log from `offset`, as chunks of one stream each."""
    wanted = {"b_build": build, "b_attempt": attempt, "b_index": index}
    rows = c.execute(_CHUNKS, {**wanted, "b_offset": offset, "b_limit": offset + limit})
    return [
        clipped
        for row in rows
        if (clipped := _clip(Chunk(row.offset, row.stream, bytes(row.data)), offset, limit)).data
    ]


def _clip(chunk: Chunk, offset: int, limit: int) -> Chunk:
    start = max(offset - chunk.offset, 0)
    data = chunk.data[start : offset + limit - chunk.offset]
    return Chunk(chunk.offset + start, chunk.stream, data)


def read(
    c: Connection, build: str, attempt: int, index: int, offset: int, limit: int
) -> tuple[bytes, int]:
    """At most `limit` bytes of the log from `offset`, and the offset after the last of them.

    At or past the end: no bytes, and `offset` again. The step's row (state, log_size_bytes) says
    whether more bytes may come.
    """
    data = b"".join(chunk.data for chunk in chunks(c, build, attempt, index, offset, limit))
    return data, offset + len(data)
