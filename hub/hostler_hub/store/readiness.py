"""Whether the hub can keep what it accepts: its database, its state directory, its descriptors.

Theory of operation. ``why_not`` tries it out: a row is written and read, a small file is made in
the state directory, which takes a descriptor. Those who ask at the same moment share one trial.
When the store has noticed an outage, ``watch`` tries the database every second until it works
again, so that the hub heals although nobody asks for anything; that time counts as the hub's own
standstill, for which no agent is blamed (V12).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

import structlog
from sqlalchemy import Connection

from hostler_hub.runtime.stalls import Stalls
from hostler_hub.store import meta
from hostler_hub.store.engine import Store
from hostler_hub.store.errors import StoreHeld, StoreUnavailable
from hostler_hub.store.health import Use

_log = structlog.get_logger(__name__)

ANSWER_S = 2.0
AGAIN_S = 1.0
# A disk that has room for a few bytes more is full for everything else.
_TRIAL_BYTES = 16 * 1024


class Readiness:
    """Tries out whether what the hub accepts now would be kept."""

    def __init__(self, store: Store, state_dir: Path) -> None:
        self._store = store
        self._state_dir = state_dir
        self._trial: asyncio.Task[str | None] | None = None
        self._said: str | None = None
        self._outage = asyncio.Event()
        loop = asyncio.get_running_loop()
        store.health.listen(lambda: _set_from_thread(loop, self._outage))

    async def why_not(self) -> str | None:
        """Why the hub cannot keep what it would accept now, in words without paths or hosts; None
        if it can. Answers within ANSWER_S.
        """
        trouble = self._store.health.trouble
        reason = await self._try_shared() if trouble is None else trouble.reason
        if trouble is None and reason != self._said:
            self._said = reason
            if reason is not None:
                _log.error("hub not ready", reason=reason)
            else:
                _log.info("hub ready again")
        return reason

    async def watch(self, stalls: Stalls, on_healed: Callable[[], None]) -> None:
        """During each outage of the store, try the database until it works again, then call
        `on_healed`; run until cancelled.
        """
        while True:
            await self._outage.wait()
            self._outage.clear()
            with stalls.waiting():
                await self._try_until_healed()
            on_healed()

    async def aclose(self) -> None:
        """Cancel a trial that is in progress."""
        if self._trial is not None:
            self._trial.cancel()
            await asyncio.gather(self._trial, return_exceptions=True)

    async def _try_shared(self) -> str | None:
        if self._trial is None or self._trial.done():
            self._trial = asyncio.create_task(self._try(), name="readiness")
        await asyncio.wait({self._trial}, timeout=ANSWER_S)
        if self._trial.done():
            return self._trial.result()
        return f"the database or the state directory has not answered for {ANSWER_S:g} s"

    async def _try(self) -> str | None:
        try:
            await self._store.write(_write_row)
            await self._store.read(meta.get, "trial")
            await asyncio.to_thread(_make_file, self._state_dir)
        except StoreUnavailable as error:
            return error.summary
        except StoreHeld:
            return "another hub holds the database"
        except OSError as error:
            words = os.strerror(error.errno) if error.errno else str(error)
            return f"the state directory cannot be written: {words.lower()}"
        return None

    async def _try_until_healed(self) -> None:
        healed = await self._has_healed()
        while not healed:
            await asyncio.sleep(AGAIN_S)
            healed = await self._has_healed()

    async def _has_healed(self) -> bool:
        try:
            await self._store.write(_write_row)
            self._store.health.recovered(Use.WRITE)
            await self._store.read(meta.get, "trial")
        except (StoreUnavailable, StoreHeld):
            return False
        return self._store.health.trouble is None


def _set_from_thread(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the hub has ended
        loop.call_soon_threadsafe(event.set)


def _write_row(c: Connection) -> None:
    meta.put(c, "trial", secrets.token_hex(_TRIAL_BYTES // 2))


def _make_file(directory: Path) -> None:
    """Write a small file. Raises OSError: no space, read-only, or no descriptors left."""
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(b"\0" * _TRIAL_BYTES)
        file.flush()
