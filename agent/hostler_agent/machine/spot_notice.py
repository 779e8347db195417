"""The notice, two minutes ahead, that a spot instance will be taken away (P16).

EC2 publishes it at the instance's metadata service, with the time. From then on the agent accepts
no new command. Running commands may go on for the time that is left, less a margin in which the hub
gives the unfinished ones to other workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Callable, Optional

if TYPE_CHECKING:
    from hostler_agent.clock import Clock

POLL_EVERY_S = 5.0
NOTICE_S = 120.0
MARGIN_S = 30.0
_SERVICE = "http://169.254.169.254"
_ANSWER_S = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notice:
    """What EC2 will do to the instance, and in how many seconds."""

    action: str
    left_s: float


class SpotNoticeWatcher:
    """Polls the metadata service for the notice."""

    def __init__(self, clock: Clock, query: Callable[[], Optional[Notice]]) -> None:
        """`query` returns the notice, or None if there is none; it may block, and runs in
        a thread.
        """
        self._clock = clock
        self._query = query

    async def watch(self, noticed: Callable[[], None], late: Callable[[], None]) -> None:
        """Call `noticed` when the notice appears, and `late` when commands that still run must be
        given up.
        """
        loop = asyncio.get_running_loop()
        while True:
            notice = await loop.run_in_executor(None, self._query)
            if notice is not None:
                break
            await self._clock.sleep(POLL_EVERY_S)
        log.warning("EC2 will %s this instance in %.0f s", notice.action, notice.left_s)
        noticed()
        await self._clock.sleep(max(0.0, notice.left_s - MARGIN_S))
        late()


def query(service: str = _SERVICE) -> Optional[Notice]:
    """Ask the metadata service for the notice; None if there is none. Never raises OSError."""
    try:
        lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        token = _request("PUT", f"{service}/latest/api/token", lifetime)
        known = {"X-aws-ec2-metadata-token": token}
        answer = _request("GET", f"{service}/latest/meta-data/spot/instance-action", known)
    except OSError:  # among them 404: there is no notice
        return None
    return _parsed(answer)


def _parsed(answer: str) -> Notice:
    """Parse `{"action": "terminate", "time": "2017-09-18T08:22:00Z"}`. Any other text counts as a
    notice too.
    """
    fields: object = None
    with contextlib.suppress(ValueError):
        fields = json.loads(answer)
    if not isinstance(fields, dict):
        fields = {}
    action = fields.get("action")
    return Notice(action if isinstance(action, str) else "interrupt", _left_s(fields.get("time")))


def _left_s(instant: object) -> float:
    """The seconds until `instant`, limited to what a notice gives, because the instance's clock may
    be wrong.
    """
    longest_s = NOTICE_S - POLL_EVERY_S
    try:
        end = datetime.strptime(str(instant), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return longest_s
    return min(longest_s, max(0.0, end.timestamp() - time.time()))


def _request(method: str, url: str, headers: Mapping[str, str]) -> str:
    # A proxy of the environment would be asked for a machine's own service.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, method=method, headers=dict(headers))  # noqa: S310 - ours
    with opener.open(request, timeout=_ANSWER_S) as answer:
        return str(answer.read(4096).decode("utf-8", "replace"))
