"""An agent that can be ended from another thread, as a service runs it.

Stopping it drains it: it takes no new commands, and those that run may finish until a deadline.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Callable, Optional

if TYPE_CHECKING:
    from hostler_agent.config import Config
    from hostler_agent.daemon import Daemon

AGAIN_S = 30.0
"""The interval in seconds at which a permanent worker that its hub has sent away tries to attach
again."""

log = logging.getLogger(__name__)


class Serving:
    """Runs the agent in one thread; `end` may be called in any thread, also before `run`.

    `run` raises what `prepare` raises.
    """

    def __init__(self, prepare: Callable[[], Config], again_s: float = AGAIN_S) -> None:
        self._prepare = prepare
        self._again_s = again_s
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._daemon: Optional[Daemon] = None
        self._within_s = 0.0
        self._is_ending = threading.Event()

    def run(self) -> int:
        """Run until asked to end; an instance's agent also until its hub orders it away. Returns
        its exit code. Raises ConfigurationError.
        """
        from hostler_agent.run import run  # noqa: PLC0415

        config = self._prepare()
        while True:
            code = run(config, self._started)
            if code or config.instance is not None:
                return code
            if self._is_ending.wait(self._again_s):
                return code
            log.info("looking whether the hub wants this worker again")

    def end(self, within_s: float) -> None:
        """Drain the agent for `within_s` seconds, and then stop it."""
        self._within_s = within_s
        self._is_ending.set()
        loop = self._loop
        if loop is not None:
            # Between two runs there is nobody to tell.
            try:
                loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                log.debug("it has ended already")

    def _started(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._loop = asyncio.get_running_loop()
        if self._is_ending.is_set():
            self._drain()

    def _drain(self) -> None:
        assert self._loop is not None
        assert self._daemon is not None
        self._daemon.finish()
        self._loop.call_later(self._within_s, self._daemon.stop)
