"""The thread that writes: it runs waiting functions in groups, one transaction each. See
engine.py.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy.exc import DBAPIError

from hostler_hub.store.errors import (
    StoreBusy,
    StoreClosed,
    StoreError,
    StoreFull,
    StoreLost,
    StoreUnavailable,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from sqlalchemy import Connection

    from hostler_hub.store.backend import Backend
    from hostler_hub.store.lock import HubLock
    from hostler_hub.store.tuning import Tuning


class Job(NamedTuple):
    """A function to run and the future that waits for it."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    future: asyncio.Future[Any]


class JobResult(NamedTuple):
    """What a job returned, or the error that it raised."""

    value: Any
    error: BaseException | None = None


class UnansweredCommit(NamedTuple):
    """A commit that was sent but not answered, and the results of its jobs if it took place."""

    stamp: str
    results: list[JobResult]


class Writer:
    """One connection and one thread that run the functions of any number of callers."""

    def __init__(
        self,
        backend: Backend,
        tuning: Tuning,
        lock: HubLock | None,
        on_trouble: Callable[[StoreUnavailable], None],
    ) -> None:
        self._backend = backend
        self._tuning = tuning
        self._lock = lock
        self._on_trouble = on_trouble
        self._errors: tuple[type[Exception], ...] = (DBAPIError, *backend.driver_errors)
        self._engine = backend.writer()
        self._connection: Connection | None = None
        self._unanswered: UnansweredCommit | None = None
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._start()

    def _start(self) -> None:
        """Start the thread that takes jobs. A simulation overrides this, to work without a
        thread.
        """
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def put(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        future: asyncio.Future[Any],
    ) -> None:
        """Queue a function. May be called from any thread; the future is resolved in its own event
        loop.
        """
        self._jobs.put(Job(fn, args, kwargs, future))

    def close(self) -> None:
        """Finish the queued jobs, then end the thread. During an outage each job is tried once
        more.
        """
        self._closing.set()
        self._jobs.put(None)
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            batch, closing = self._gather()
            if batch:
                self._hand_out(batch, self._run_until_stored(batch))
        self._release()
        self._engine.dispose()
        if self._lock is not None:
            self._lock.release()
        self._refuse_the_rest()

    def _gather(self) -> tuple[list[Job], bool]:
        """Wait for one job and take those that are queued behind it. Returns them, and whether to
        stop afterwards.
        """
        batch: list[Job] = []
        job = self._jobs.get()
        try:
            while job is not None:
                batch.append(job)
                if len(batch) == self._tuning.batch:
                    return batch, False
                job = self._jobs.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def _run_until_stored(self, batch: list[Job]) -> list[JobResult]:
        """Run the batch until its transaction took place or `Tuning.patience_s` passed."""
        deadline = time.monotonic() + self._tuning.patience_s
        pause_s = self._tuning.retry.first_s
        while True:
            try:
                return self._attempt(batch)
            except StoreUnavailable as failure:
                self._on_trouble(failure)
                if self._is_hopeless(failure, deadline):
                    return [JobResult(None, self._give_up(failure))] * len(batch)
            # The thread's boundary: whatever went wrong, the callers hear of it and it lives on.
            except BaseException as error:  # noqa: BLE001
                self._release(lost=True)
                return [JobResult(None, self._give_up(error))] * len(batch)
            self._closing.wait(pause_s)
            pause_s = self._tuning.retry.after_s(pause_s)

    def _is_hopeless(self, failure: StoreUnavailable, deadline: float) -> bool:
        # A full disk is not waited for: the hub refuses new work at once, and agents keep theirs.
        # Lost files do not come back.
        hopeless = isinstance(failure, StoreFull | StoreLost)
        return hopeless or self._closing.is_set() or time.monotonic() > deadline

    def _give_up(self, failure: BaseException) -> BaseException:
        """The error for a batch that is given up. Forgets its unanswered commit, which is not the
        next batch's.
        """
        unanswered, self._unanswered = self._unanswered, None
        if unanswered is None:
            return failure
        unknown = StoreUnavailable(f"the outcome of a commit is unknown: {failure}")
        unknown.__cause__ = failure
        return unknown

    def _attempt(self, batch: list[Job]) -> list[JobResult]:
        try:
            connection = self._connected()
            self._backend.check()
            results = self._results_of_unanswered(connection)
            if results is None:
                results = self._transact(connection, batch)
            # Also after the commit: nobody is told of what went into a deleted file (V22).
            self._backend.check()
        except self._errors as error:
            failure = self._backend.failure(error)
            self._release(lost=not isinstance(failure, StoreBusy))
            raise failure from error
        except StoreError:  # the lock's, a commit still undecided, or the files' are gone
            self._release()
            raise
        else:
            return results

    def _results_of_unanswered(self, connection: Connection) -> list[JobResult] | None:
        """The results of the commit whose answer was lost, if it took place (D4); else None."""
        if self._unanswered is None:
            return None
        committed = self._backend.committed(connection, self._unanswered.stamp)
        connection.rollback()
        results = self._unanswered.results
        self._unanswered = None
        return results if committed else None

    def _transact(self, connection: Connection, batch: list[Job]) -> list[JobResult]:
        transaction = connection.begin()
        stamp = self._backend.stamp(connection)
        if len(batch) == 1:
            results = [self._call(connection, batch[0])]
            if results[0].error is not None:
                transaction.rollback()
                return results
        else:
            results = [self._guarded(connection, job) for job in batch]
        if stamp is not None:
            self._unanswered = UnansweredCommit(stamp, results)
        transaction.commit()
        self._unanswered = None
        return results

    def _guarded(self, connection: Connection, job: Job) -> JobResult:
        run = self._backend.run
        run(connection, "SAVEPOINT job")
        result = self._call(connection, job)
        if result.error is not None:
            run(connection, "ROLLBACK TO SAVEPOINT job")
        run(connection, "RELEASE SAVEPOINT job")
        return result

    def _call(self, connection: Connection, job: Job) -> JobResult:
        """Run one job. Raises only for errors that make the whole transaction fail."""
        try:
            return JobResult(job.fn(connection, *job.args, **job.kwargs))
        except self._errors as error:
            failure = self._backend.failure(error)
            if isinstance(failure, StoreUnavailable):
                raise
            failure.__cause__ = error
            return JobResult(None, failure)
        # The job's boundary: its error belongs to whoever handed it in, not to its neighbours.
        except BaseException as error:  # noqa: BLE001
            return JobResult(None, error)

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
            if self._lock is not None:
                self._lock.take(self._connection)
                self._connection.rollback()
        return self._connection

    def _release(self, *, lost: bool = False) -> None:
        """Return the connection to its pool, or close it if it is `lost`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # A session that is gone cannot even say goodbye; that must not hide why it is gone.
            with contextlib.suppress(*self._errors):
                if lost:
                    connection.invalidate()
                connection.close()

    def _refuse_the_rest(self) -> None:
        with contextlib.suppress(queue.Empty):
            while (job := self._jobs.get_nowait()) is not None:
                self._hand_out([job], [JobResult(None, StoreClosed("the store is closed"))])

    @staticmethod
    def _hand_out(batch: list[Job], results: list[JobResult]) -> None:
        """Resolve the callers' futures, waking each event loop once."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], JobResult]]] = {}
        for job, result in zip(batch, results, strict=True):
            by_loop.setdefault(job.future.get_loop(), []).append((job.future, result))
        for loop, resolved in by_loop.items():
            with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits there
                loop.call_soon_threadsafe(_deliver, resolved)


def _deliver(resolved: list[tuple[asyncio.Future[Any], JobResult]]) -> None:
    for future, result in resolved:
        if future.done():  # its waiter was cancelled
            continue
        if result.error is None:
            future.set_result(result.value)
        else:
            future.set_exception(_settable(result.error))
            if isinstance(result.error, StoreUnavailable):
                # Not everybody waits for what they write, and the outage was logged: without this
                # look at it asyncio would log a traceback for each.
                future.exception()


def _settable(error: BaseException) -> Exception:
    """The error as a future can hold it: a StopIteration cannot be set, and a SystemExit would end
    the waiter's event loop.
    """
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    told = StoreError(f"the function given to the store raised {type(error).__name__}")
    told.__cause__ = error
    return told
