"""The writer's thread: groups of waiting functions, one transaction each. See engine.py."""

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


class Outcome(NamedTuple):
    """What a job came to: a result, or the error it raised."""

    result: Any
    error: BaseException | None = None


class Unsettled(NamedTuple):
    """A commit that was sent and not answered, and what it would mean if it took place."""

    stamp: str
    outcomes: list[Outcome]


class Writer:
    """One connection, one thread, any number of waiting functions."""

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
        self._unsettled: Unsettled | None = None
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._start()

    def _start(self) -> None:
        """From here on somebody takes jobs; a simulation has its own way, without a thread."""
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def put(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        future: asyncio.Future[Any],
    ) -> None:
        """Queue a function. From any thread; the future is settled on its own loop."""
        self._jobs.put(Job(fn, args, kwargs, future))

    def close(self) -> None:
        """Finish what is queued, then end the thread. During an outage each gets one more try."""
        self._closing.set()
        self._jobs.put(None)
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            batch, closing = self._gather()
            if batch:
                self._settle(batch, self._outcomes(batch))
        self._release()
        self._engine.dispose()
        if self._lock is not None:
            self._lock.release()
        self._refuse_the_rest()

    def _gather(self) -> tuple[list[Job], bool]:
        """Wait for one job and take those that wait with it; and whether to stop afterwards."""
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

    def _outcomes(self, batch: list[Job]) -> list[Outcome]:
        """Run the batch until it took place, or patience ran out."""
        deadline = time.monotonic() + self._tuning.patience_s
        pause_s = self._tuning.retry.first_s
        while True:
            try:
                return self._attempt(batch)
            except StoreUnavailable as failure:
                if self._gives_up(failure, deadline):
                    return [Outcome(None, self._last_word(failure))] * len(batch)
                self._on_trouble(failure)
            # The thread's boundary: whatever went wrong, the callers hear of it and it lives on.
            except BaseException as error:  # noqa: BLE001
                self._release(lost=True)
                return [Outcome(None, self._last_word(error))] * len(batch)
            self._closing.wait(pause_s)
            pause_s = self._tuning.retry.after_s(pause_s)

    def _gives_up(self, failure: StoreUnavailable, deadline: float) -> bool:
        # A full disk is not waited for: the hub refuses new work at once, and agents keep theirs.
        # Lost files do not come back.
        hopeless = isinstance(failure, StoreFull | StoreLost)
        return hopeless or self._closing.is_set() or time.monotonic() > deadline

    def _last_word(self, failure: BaseException) -> BaseException:
        """Give the batch up; the next must not be taken for this one's unsettled commit."""
        unsettled, self._unsettled = self._unsettled, None
        if unsettled is None:
            return failure
        unknown = StoreUnavailable(f"the outcome of a commit is unknown: {failure}")
        unknown.__cause__ = failure
        return unknown

    def _attempt(self, batch: list[Job]) -> list[Outcome]:
        try:
            connection = self._connected()
            self._backend.check()
            settled = self._settled(connection)
            outcomes = self._transact(connection, batch) if settled is None else settled
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
            return outcomes

    def _settled(self, connection: Connection) -> list[Outcome] | None:
        """The outcomes of a commit whose answer was lost, if it took place after all (D4)."""
        if self._unsettled is None:
            return None
        committed = self._backend.committed(connection, self._unsettled.stamp)
        connection.rollback()
        outcomes = self._unsettled.outcomes
        self._unsettled = None
        return outcomes if committed else None

    def _transact(self, connection: Connection, batch: list[Job]) -> list[Outcome]:
        transaction = connection.begin()
        stamp = self._backend.stamp(connection)
        if len(batch) == 1:
            outcomes = [self._call(connection, batch[0])]
            if outcomes[0].error is not None:
                transaction.rollback()
                return outcomes
        else:
            outcomes = [self._guarded(connection, job) for job in batch]
        if stamp is not None:
            self._unsettled = Unsettled(stamp, outcomes)
        transaction.commit()
        self._unsettled = None
        return outcomes

    def _guarded(self, connection: Connection, job: Job) -> Outcome:
        run = self._backend.run
        run(connection, "SAVEPOINT job")
        outcome = self._call(connection, job)
        if outcome.error is not None:
            run(connection, "ROLLBACK TO SAVEPOINT job")
        run(connection, "RELEASE SAVEPOINT job")
        return outcome

    def _call(self, connection: Connection, job: Job) -> Outcome:
        """Run one job; raises only for what spoils the whole transaction."""
        try:
            return Outcome(job.fn(connection, *job.args, **job.kwargs))
        except self._errors as error:
            failure = self._backend.failure(error)
            if isinstance(failure, StoreUnavailable):
                raise
            failure.__cause__ = error
            return Outcome(None, failure)
        # The job's boundary: its error belongs to whoever handed it in, not to its neighbours.
        except BaseException as error:  # noqa: BLE001
            return Outcome(None, error)

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
            if self._lock is not None:
                self._lock.take(self._connection)
                self._connection.rollback()
        return self._connection

    def _release(self, *, lost: bool = False) -> None:
        """Give the connection back to its pool, or away for good when it is `lost`."""
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
                self._settle([job], [Outcome(None, StoreClosed("the store is closed"))])

    @staticmethod
    def _settle(batch: list[Job], outcomes: list[Outcome]) -> None:
        """Let the callers know, waking each event loop once."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Outcome]]] = {}
        for job, outcome in zip(batch, outcomes, strict=True):
            by_loop.setdefault(job.future.get_loop(), []).append((job.future, outcome))
        for loop, settled in by_loop.items():
            with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits there
                loop.call_soon_threadsafe(_deliver, settled)


def _deliver(settled: list[tuple[asyncio.Future[Any], Outcome]]) -> None:
    for future, outcome in settled:
        if future.done():  # its waiter was cancelled
            continue
        if outcome.error is None:
            future.set_result(outcome.result)
        else:
            future.set_exception(_bearable(outcome.error))


def _bearable(error: BaseException) -> Exception:
    """No future can hold a StopIteration, and a SystemExit would end its waiter's loop."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    told = StoreError(f"the function given to the store raised {type(error).__name__}")
    told.__cause__ = error
    return told
