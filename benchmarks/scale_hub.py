"""A hub that knows the swarm, and how late its event loop is: `python -m benchmarks.scale_hub DIR`.

Every second the 99th percentile of the last ten seconds' lags, in ms, is in DIR/lag.json.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI

from benchmarks.swarm import SwarmDriver
from hostler_hub.drivers import registry
from hostler_hub.runtime.settings import Settings

TICK_S = 0.01
KEPT = 1000


async def _watch(file: Path) -> None:
    loop = asyncio.get_running_loop()
    lags: deque[float] = deque(maxlen=KEPT)
    ticks = 0
    while True:
        began_at = loop.time()
        await asyncio.sleep(TICK_S)
        lags.append(loop.time() - began_at - TICK_S)
        ticks += 1
        if ticks % 100 == 0:
            p99_ms = sorted(lags)[int(len(lags) * 0.99) - 1] * 1000
            fresh = file.with_suffix(".new")
            fresh.write_text(json.dumps(p99_ms))
            fresh.replace(file)


def main(directory: Path) -> None:
    registry.load = lambda: {SwarmDriver.name: SwarmDriver}
    # Only now: the composition root takes the registry as it finds it.
    from hostler_hub import server  # noqa: PLC0415

    create = server.create_app

    def watched(settings: Settings) -> FastAPI:
        app = create(settings)
        inner = app.router.lifespan_context

        @contextlib.asynccontextmanager
        async def lifespan(application: FastAPI) -> AsyncIterator[None]:
            async with inner(application):
                watching = asyncio.create_task(_watch(directory / "lag.json"))
                yield
                watching.cancel()

        app.router.lifespan_context = lifespan
        return app

    server.create_app = watched
    server.serve(Settings(directory, port=int(sys.argv[2])))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
