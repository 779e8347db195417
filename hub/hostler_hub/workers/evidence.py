"""Evidence of an instance that failed: gathered before it is destroyed, kept for a while."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from hostler_hub.drivers.contract import Driver, InstanceRef, Witness
from hostler_hub.runtime.clock import Clock
from hostler_hub.store import evidence
from hostler_hub.store.engine import Store
from hostler_hub.store.errors import StoreUnavailable

_log = structlog.get_logger(__name__)

DEADLINE_S = 20.0
TEXT_SIZE_BYTES = 64 * 1024
TEXTS = 16


class Evidence:
    """Asks drivers for evidence, if they have the power (``Witness``), and stores the texts."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def gather(self, driver: Driver, ref: InstanceRef, why: str) -> None:
        """Ask the driver once for texts about the instance, and store them.

        Called before the instance is destroyed because of ``why``. A failure of the driver, or of
        the store, is only logged: it must not keep the instance alive.
        """
        if not isinstance(driver, Witness):
            return
        try:
            async with asyncio.timeout(DEADLINE_S):
                texts = await driver.evidence(ref)
        except Exception as error:  # noqa: BLE001 - a driver may be anybody's code
            _log.warning("no evidence", worker=ref.worker, instance=ref.instance, error=str(error))
            return
        bounded = {name[:64]: _tail(text) for name, text in list(texts.items())[:TEXTS]}
        if bounded:
            row = {
                "instance": ref.instance,
                "worker": ref.worker,
                "at": self._clock.now(),
                "why": why,
                "texts": bounded,
            }
            try:
                await self._store.write(evidence.put, row)
            except StoreUnavailable as error:
                _log.warning("evidence not kept", worker=ref.worker, reason=str(error))

    async def of_worker(self, worker: str) -> list[dict[str, Any]]:
        """The stored evidence of a worker's instances, latest first."""
        return [dict(row) for row in await self._store.read(evidence.of_worker, worker)]


def _tail(text: str) -> str:
    """Cut a text to its last TEXT_SIZE_BYTES: the end tells what happened."""
    data = text.encode(errors="replace")
    if len(data) <= TEXT_SIZE_BYTES:
        return data.decode()
    return "[...]\n" + data[-TEXT_SIZE_BYTES:].decode(errors="replace")
