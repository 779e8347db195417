"""The store: runs functions on a connection in threads and commits writes in groups.

Theory of operation. All writes go through one thread. It takes the functions that are waiting, runs
them in one transaction, each behind a SAVEPOINT so that one that fails does not affect the others,
commits once, and only then resolves the callers' futures. While the commit waits for the disk, the
next group gathers: many writes share the cost of one durable commit, and a single write is not
delayed to wait for others.

The whole group is run again when the transaction could not take place: the database is locked (D1),
there is a deadlock or a serialization failure, or the session is lost (D3). If the answer of a
commit was lost, the transaction is looked up by its id before anything is run again (D4). Therefore
one rule holds for written functions: **they may run more than once**, so they touch nothing but the
connection.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy.exc import DBAPIError

from hostler_hub.store import schema
from hostler_hub.store.backend import backend_for
from hostler_hub.store.errors import (
    StoreClosed,
    StoreFull,
    StoreLost,
    StoreReadOnly,
    StoreUnavailable,
)
from hostler_hub.store.health import Health, Use
from hostler_hub.store.tuning import Tuning
from hostler_hub.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

P = ParamSpec("P")
T = TypeVar("T")

_WATCH_S = 1.0


class Store:
    """A database, read and written by functions whose first argument is a Connection.

    `exclusive`: this process is the hub; open() then takes the one-hub lock and upgrades the
    schema. Others (a command-line tool beside a running hub) leave it out and write all the same.
    `on_trouble` is called in the writer's thread for each try that failed during an outage.
    `health` tells of an outage.
    """

    def __init__(
        self,
        url: str,
        *,
        exclusive: bool = False,
        tuning: Tuning | None = None,
        on_trouble: Callable[[StoreUnavailable], None] | None = None,
        writer: type[Writer] = Writer,
    ) -> None:
        self._tuning = tuning or Tuning()
        self._backend = backend_for(url, self._tuning)
        lock = self._backend.lock() if exclusive else None
        self.health = Health()
        self._on_trouble = on_trouble
        self._writer = writer(self._backend, self._tuning, lock, self._note_trouble)
        self._readers = self._backend.readers()
        self._threads = ThreadPoolExecutor(self._tuning.readers, thread_name_prefix="store-reader")
        self._errors: tuple[type[Exception], ...] = (DBAPIError, *self._backend.driver_errors)
        self._closing = threading.Event()
        self._exclusive = exclusive

    def _note_trouble(self, error: StoreUnavailable) -> None:
        self.health.failed(Use.WRITE, error)
        if self._on_trouble is not None:
            self._on_trouble(error)

    async def open(self) -> None:
        """Connect; take the lock and upgrade the schema (exclusive), or check the schema (others).

        Raises StoreHeld, SchemaTooNew, SchemaOutdated, or StoreUnavailable after
        `Tuning.patience_s`.
        """
        await self.write(schema.migrate if self._exclusive else schema.check)

    def write(
        self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        """Run `fn(connection, *args)` in the writer; the future resolves once it is durable.

        Functions run in the order of the calls, also when nobody awaits. `fn` may run more than
        once (see the module); it returns plain data, not a cursor, and catches no database error.
        Its own exception undoes what it wrote and reaches the caller. Cancelling the wait does
        not cancel the write. Raises StoreUnavailable when patience ran out: the write then did
        not take place, unless the message says that its outcome is unknown.
        """
        if self._closing.is_set():
            raise StoreClosed("the store is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._writer.put(fn, args, kwargs, future)
        return future

    async def insist(
        self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Repeat write() through an outage of any length until the write is stored (D3).

        For events that have happened and cannot be refused. A new request is refused instead: use
        write().
        """
        while True:
            try:
                return await self.write(fn, *args, **kwargs)
            except StoreUnavailable as error:  # noqa: PERF203 - once a minute
                self._note_trouble(error)
                await asyncio.sleep(self._tuning.retry.longest_s)

    async def read(
        self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `fn(connection, *args)` on one snapshot, beside the writer and other reads.

        Sees every write whose future has resolved. `fn` may run more than once and cannot write.
        Raises StoreUnavailable when patience ran out; at once while reads are known to fail, so
        that those who wait for the database do not keep the few threads from all others.
        """
        if self._closing.is_set():
            raise StoreClosed("the store is closed")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._read, fn, args, kwargs)

    def _read(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        patience_s = 0.0 if self.health.is_failing(Use.READ) else self._tuning.patience_s
        deadline = time.monotonic() + patience_s
        pause_s = self._tuning.retry.first_s
        # Lost sessions come by the pool: each may be found dead once before new ones are made.
        while True:
            try:
                with self._readers.connect() as connection:
                    result = fn(connection, *args, **kwargs)
            except self._errors as error:
                failure = self._backend.failure(error)
                if isinstance(failure, StoreUnavailable):
                    self.health.failed(Use.READ, failure)
                useless = isinstance(failure, StoreFull | StoreReadOnly)
                hopeless = useless or time.monotonic() + pause_s > deadline
                if not isinstance(failure, StoreUnavailable) or hopeless:
                    raise failure from error
            else:
                self.health.recovered(Use.READ)
                return result
            if self._closing.wait(pause_s):
                raise StoreClosed("the store was closed during an outage")
            pause_s = self._tuning.retry.after_s(pause_s)

    async def watch(self) -> StoreLost:
        """Check the database's files once a second. Returns what happened to them, once something
        has.
        """
        while True:
            try:
                self._backend.check()
            except StoreLost as lost:
                return lost
            await asyncio.sleep(_WATCH_S)

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Finish the writes that were handed in, close every connection, and release the lock."""
        self._closing.set()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.close()
        self._threads.shutdown()
        self._readers.dispose()
        self._backend.close()
