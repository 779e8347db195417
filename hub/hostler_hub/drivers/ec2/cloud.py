"""Calls to one EC2 region: in threads, within its rate limits, with translated errors."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hostler_hub.drivers.ec2.client import THREADS, RenewedClient
from hostler_hub.drivers.ec2.errors import CallFailed, Meaning, is_of_credentials, meaning
from hostler_hub.drivers.ec2.options import Ec2Options
from hostler_hub.drivers.ec2.throttle import Bucket
from hostler_hub.drivers.errors import DriverError
from hostler_hub.lifecycle.backoff import Backoff
from hostler_hub.runtime.secrets import Secrets

# AWS refills 2 RunInstances calls a second; describing and ending have more room.
_RATES = {"run_instances": (2.0, 20)}
_OTHER_RATE = (10.0, 50)
THROTTLED = Backoff(first_s=1.0, longest_s=20.0, jitter=0.5)


class Cloud:
    """One region, accessed with one set of credentials."""

    def __init__(self, options: Ec2Options, secrets: Secrets) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="ec2")
        self._client = RenewedClient(options, secrets)
        self._buckets: dict[str, Bucket] = {}

    async def call(self, operation: str, doing: str, **arguments: Any) -> Mapping[str, Any]:
        """Make one call and return its answer. A throttled call is repeated, with growing pauses,
        until EC2 accepts it.

        `doing` says in error messages what was tried. Raises CallFailed, which has boto3's own
        error and its meaning.
        """
        throttled = 0
        while True:
            bucket = self._bucket(operation)
            await bucket.take()
            try:
                return await self._once(operation, arguments)
            except DriverError:
                raise
            except Exception as error:  # the SDK's own, and what its parts raise
                if is_of_credentials(error):
                    self._client.refused()
                if meaning(error) is not Meaning.THROTTLED:
                    raise CallFailed(error, doing) from error
            bucket.penalise()
            throttled += 1
            jitter = random.random()  # noqa: S311 - a place in time, not a secret
            await asyncio.sleep(THROTTLED.delay_s(throttled, jitter))

    async def pages(self, operation: str, doing: str, **arguments: Any) -> list[Mapping[str, Any]]:
        """Make a call for every page of its answer and return the pages. Raises CallFailed."""
        found: list[Mapping[str, Any]] = []
        more: dict[str, str] = {}
        while True:
            page = await self.call(operation, doing, **arguments, **more)
            found.append(page)
            if not page.get("NextToken"):
                return found
            more = {"NextToken": str(page["NextToken"])}

    async def _once(self, operation: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        def ask() -> Mapping[str, Any]:
            answer: Mapping[str, Any] = getattr(self._client.current(), operation)(**arguments)
            return answer

        return await asyncio.get_running_loop().run_in_executor(self._threads, ask)

    def _bucket(self, operation: str) -> Bucket:
        if operation not in self._buckets:
            rate, burst = _RATES.get(operation, _OTHER_RATE)
            self._buckets[operation] = Bucket(rate, burst, time.monotonic)
        return self._buckets[operation]

    def close(self) -> None:
        """Close the connections. A call in progress ends by its own timeout."""
        self._client.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
