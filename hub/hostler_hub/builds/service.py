"""The use cases on builds: submit, read, wait for the end, cancel, read logs.

Every acknowledged build reaches exactly one terminal result (V6): it is in the store before it is
acknowledged, the supervisor requeues it when its worker is lost, and a build that cannot be run
again ends as an exception that says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping

from hostler_hub.builds.logs import LogSlice, StepKey
from hostler_hub.builds.step_runner import Services
from hostler_hub.builds.supervisor import Supervisor
from hostler_hub.builds.views import BuildPage, BuildView, build_view
from hostler_hub.errors import Conflict, InvalidRequest, NotFound
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.scheduling.backlog import Backlog
from hostler_hub.scheduling.planner import Waiting
from hostler_hub.scheduling.reasons import Reasons
from hostler_hub.specs.build import BuildSpec
from hostler_hub.specs.states import BuildState
from hostler_hub.store import builds
from hostler_hub.store.rows import Row


class Builds:
    """Answers requests about builds: submit, read, wait, cancel."""

    def __init__(
        self, services: Services, backlog: Backlog, reasons: Reasons, supervisor: Supervisor
    ) -> None:
        self._store = services.store
        self._clock = services.clock
        self._logs = services.logs
        self._files = services.exchange.files
        self._secrets = services.secrets
        self._ended = services.ended
        self._backlog = backlog
        self._reasons = reasons
        self._supervisor = supervisor

    async def submit(
        self, spec: BuildSpec, *, by: str, idempotency_key: str | None
    ) -> tuple[BuildView, bool]:
        """Store a build durably. Returns its view, and whether it was created.

        If ``by`` used the idempotency key before, the first build is returned. Raises Conflict if
        that one has another spec, InvalidRequest if no defined worker can run the build or a file
        that it downloads is not stored, Forbidden if ``by`` may not use one of its secrets.
        """
        digest = hashlib.sha256(spec.model_dump_json().encode()).hexdigest()
        if idempotency_key is not None:
            known = await self._store.read(builds.by_idempotency_key, by, idempotency_key)
            if known is not None:
                return await self._known(known, digest), False
        self._reasons.refuse_hopeless(spec.requires)
        self._refuse_missing_files(spec)
        await self._secrets.check(spec, by)
        now = self._clock.now()
        build_id = new_ulid(int(now * 1000))
        row = _new_row(build_id, spec, by, now) | {
            "idempotency_key": idempotency_key,
            "spec_digest": digest,
        }
        stored = await self._store.write(_insert_once, row)
        if stored["id"] != build_id:  # another request with the same key was faster
            return await self._known(stored, digest), False
        self._backlog.put(Waiting(build_id, spec, 0, spec.priority))
        return build_view(row, []), True

    async def _known(self, row: Row, digest: str) -> BuildView:
        if row["spec_digest"] != digest:
            raise Conflict(
                f"this Idempotency-Key was used for another build ({row['id']}); "
                "use a new key for a new build"
            )
        return await self.get(row["id"])

    def _refuse_missing_files(self, spec: BuildSpec) -> None:
        for index, step in enumerate(spec.steps):
            sha256 = step.download.file if step.download else None
            if sha256 is not None and not self._files.has(sha256):
                raise InvalidRequest(
                    f"no file {sha256} is stored: store it first (POST /api/v1/files)",
                    pointer=f"/steps/{index}/download/file",
                )

    async def get(self, id: str) -> BuildView:
        """The build's view, with the reasons why it waits while it does. Raises NotFound."""
        found = await self._store.read(_with_steps, id)
        if found is None:
            raise NotFound(f"there is no build {id}")
        row, steps = found
        waiting = self._backlog.get(id)
        if waiting is None:
            return build_view(row, steps)
        why = self._reasons.of_build(waiting, self._clock.now())
        return build_view(row, steps, reasons=why)

    async def wait(self, id: str, wait_s: float) -> BuildView:
        """The build's view as soon as the build has ended, or after ``wait_s``
        seconds. Raises NotFound.
        """
        with self._ended.waiting(id) as ended:
            view = await self.get(id)
            if not view.state.is_terminal and wait_s > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await ended.wait()
                view = await self.get(id)
            return view

    async def page(
        self, *, state: str | None, worker: str | None, limit: int, after: str | None
    ) -> BuildPage:
        """Builds newest first; ``next`` is the ``after`` of the next page, or None."""
        rows = await self._store.read(
            builds.page, state=state, worker=worker, limit=limit, after=after
        )
        # Only the builds that are next get a reason here; get() gives one for any build.
        waiting = (
            found for row in reversed(rows) if (found := self._backlog.get(row["id"])) is not None
        )
        why = self._reasons.in_words(waiting, self._clock.now())
        items = [build_view(row, [], why=why.get(row["id"])) for row in rows]
        return BuildPage(items=items, next=items[-1].id if len(items) == limit else None)

    async def cancel(self, id: str, *, reason: str | None, by: str) -> BuildView:
        """End a build: at once if it waits, by interrupting it if it runs. Idempotent
        (A13). Raises NotFound.
        """
        text = f"cancelled by {by}: {reason}" if reason else f"cancelled by {by}"
        outcome = await self._store.write(_cancel, id, text, self._clock.now())
        if outcome is None:
            raise NotFound(f"there is no build {id}")
        self._backlog.taken(id)
        if outcome == "finished":
            self._ended.wake(id)
        self._supervisor.cancel(id, text)
        return await self.get(id)

    async def read_log(self, id: str, index: int, offset: int, limit: int) -> LogSlice:
        """At most ``limit`` bytes of a step's log from ``offset`` on, in the latest
        attempt. Raises NotFound.
        """
        return await self._logs.read(await self._step(id, index), offset, limit)

    async def follow_log(self, id: str, index: int, offset: int) -> AsyncIterator[bytes]:
        """Yield a step's log from ``offset`` on as it grows, until the step ends. Raises NotFound
        before the first byte.
        """
        key = await self._step(id, index)
        async for data in self._logs.follow(key, offset):
            yield data

    async def _step(self, build_id: str, index: int) -> StepKey:
        found = await self._store.read(builds.get, build_id)
        if found is None:
            raise NotFound(f"there is no build {build_id}")
        if index >= len(found["spec"]["steps"]):
            raise NotFound(f"build {build_id} has no step {index}")
        return StepKey(build_id, max(found["attempts"], 1), index)


def _new_row(build_id: str, spec: BuildSpec, by: str, now: float) -> dict[str, Any]:
    return {
        "id": build_id,
        "name": spec.name,
        "state": BuildState.QUEUED.value,
        "spec": spec.model_dump(mode="json"),
        "priority": spec.priority,
        "submitted_by": by,
        "submitted_at": now,
        "not_before": None,
        "started_at": None,
        "finished_at": None,
        "worker": None,
        "attempts": 0,
        "result_text": None,
        "cancel_reason": None,
    }


def _insert_once(c: Connection, row: dict[str, Any]) -> Row:
    """Insert the row, unless a build of this submitter with the same idempotency key exists.
    Returns the row that is stored.
    """
    if row["idempotency_key"] is not None:
        known = builds.by_idempotency_key(c, row["submitted_by"], row["idempotency_key"])
        if known is not None:
            return known
    builds.insert(c, row)
    return row


def _with_steps(c: Connection, build_id: str) -> tuple[RowMapping, Sequence[RowMapping]] | None:
    row = builds.get(c, build_id)
    if row is None:
        return None
    return row, builds.steps(c, build_id, row["attempts"]) if row["attempts"] else []


def _cancel(c: Connection, build_id: str, reason: str, at: float) -> str | None:
    """Finish a build that waits as cancelled, else record that it is to be cancelled.

    Returns "finished" or "asked", None if there is no such build.
    """
    row = builds.get(c, build_id)
    if row is None:
        return None
    queued = row["state"] == BuildState.QUEUED
    if queued and builds.finish(c, build_id, BuildState.CANCELLED, reason, at):
        return "finished"
    builds.request_cancel(c, build_id, reason)
    return "asked"
