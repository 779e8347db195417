"""Admits agents: of an instance by epoch and one-time token, of a permanent worker by password.

A refused agent gets an HTTP answer, before the upgrade to a WebSocket. Every refusal but 503 is
recorded.

- 401 for unknown names, wrong passwords and wrong tokens alike, with the same work and the same
  words;
- 410 for the agent of an instance that has ended, once its token is proven: it must not come back
  (A2, A3);
- 403 for a request with an Origin, as browsers send it: agents send none (U8);
- 429 with Retry-After for who fails too often (see ``PasswordCheck``), and for a worker whose agent
  attaches again and again;
- 503 with Retry-After while more agents arrive per second than are let in (A12), or the store is
  not available (D3).

A token is bound to the session secret of the agent that uses it first. An agent that presents the
same token with another secret is refused, and the instance ends (U5).
"""

from __future__ import annotations

import contextlib
import hmac
import math

import structlog
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket

from hostler_agent.wire.errors import CredentialsError
from hostler_agent.wire.extension import Handshake
from hostler_hub.errors import NotFound
from hostler_hub.lifecycle import events
from hostler_hub.runtime.client import client_of
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.runtime.passwords import NO_SECRET, hash_of
from hostler_hub.runtime.secrets import Secrets
from hostler_hub.runtime.tasks import Tasks
from hostler_hub.runtime.token_bucket import TokenBucket
from hostler_hub.store import workers
from hostler_hub.store.engine import Store
from hostler_hub.store.errors import StoreUnavailable
from hostler_hub.workers.agents.session import Admitted
from hostler_hub.workers.connections.password_check import PasswordCheck
from hostler_hub.workers.connections.refusals import Refusals
from hostler_hub.workers.controller import Controller
from hostler_hub.workers.errors import HandshakeRefused
from hostler_hub.workers.hold import Hold
from hostler_hub.workers.registry import Entry, Registry

_log = structlog.get_logger(__name__)

# After how many seconds an agent may try again if the store could not be read.
STORE_RETRY_S = 5
# How often the agent of one worker may attach: so often at once, then once in so many seconds.
ATTACHES = 20
ATTACH_EVERY_S = 2.0

WRONG_CREDENTIALS = "unknown worker or wrong token"
# And if it is of an instance that has ended, but the hub is in hold and may end nothing.
HOLD_RETRY_S = 60


class Admission:
    """Decides which agents' handshakes are admitted, at most ``handshakes_per_s`` per second."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        registry: Registry,
        controller: Controller,
        refusals: Refusals,
        secrets: Secrets,
        handshakes_per_s: int,
        hold: Hold,
    ) -> None:
        self._store = store
        self._clock = clock
        self._registry = registry
        self._controller = controller
        self._refusals = refusals
        self._rate = handshakes_per_s
        self._hold = hold
        self._window = (0, 0)
        self._attaches: dict[str, TokenBucket] = {}
        self._passwords = PasswordCheck(clock, secrets)
        self._tasks = Tasks()

    async def admit(self, websocket: WebSocket) -> Admitted | None:
        """The worker and instance that the agent has proven to be.

        Returns None if the handshake was refused: then the answer has been sent.
        """
        name: str | None = None
        try:
            _refuse_browsers(websocket)
            handshake = Handshake.parse(websocket.headers)
            name = handshake.name
            return await self._identify(handshake, _client_of(websocket))
        except CredentialsError as error:
            refusal = HandshakeRefused(401, str(error))
        except StoreUnavailable as error:
            refusal = HandshakeRefused(503, f"the hub cannot look it up: {error}", STORE_RETRY_S)
        except HandshakeRefused as caught:
            refusal = caught
        after_s = refusal.retry_after_s
        headers = {} if after_s is None else {"Retry-After": str(after_s)}
        answer = PlainTextResponse(refusal.text, refusal.status, headers)
        await websocket.send_denial_response(answer)
        # After the answer, so that its time does not tell whether the worker exists.
        self._record(refusal, name, websocket.client.host if websocket.client else "")
        return None

    def _record(self, refusal: HandshakeRefused, name: str | None, client: str) -> None:
        if refusal.retry_after_s is not None:  # it may try again: that is no refusal
            _log.debug("agent put off", client=client, status=refusal.status, reason=refusal.text)
            return
        _log.warning("agent refused", client=client, status=refusal.status, reason=refusal.text)
        news = self._refusals.note(name or "", client, refusal.text)
        if news and name is not None and name in self._registry:
            cause = f"from {client or 'this machine'}: {refusal.text}"
            event = events.Refused(at=self._clock.now(), cause=cause)
            self._tasks.spawn(self._tell(name, event), f"refusal {name}")

    async def _tell(self, worker: str, event: events.Refused) -> None:
        with contextlib.suppress(NotFound):
            await self._controller.handle(worker, event)

    async def aclose(self) -> None:
        await self._tasks.aclose()

    def _pace(self, worker: str) -> None:
        """Raise HandshakeRefused if too many agents come at once. Only those that have proven who
        they are count: others could keep them all out.
        """
        bucket = self._attaches.pop(worker, None)
        if bucket is None:
            bucket = TokenBucket(1 / ATTACH_EVERY_S, ATTACHES, self._clock.monotonic)
        self._attaches[worker] = bucket
        if len(self._attaches) > 2 * len(self._registry) + ATTACHES:  # workers that were removed
            del self._attaches[next(iter(self._attaches))]
        if owed_s := bucket.take(1):
            raise HandshakeRefused(429, "this worker's agent attaches too often", _whole(owed_s))
        second, count = self._window
        now = int(self._clock.monotonic())
        count = count + 1 if now == second else 1
        self._window = (now, count)
        if count > self._rate:
            raise HandshakeRefused(503, "too many agents at once", retry_after_s=1)

    async def _identify(self, handshake: Handshake, client: str) -> Admitted:
        entry = self._registry.find(handshake.name)
        if handshake.instance is not None:
            return await self._identify_instance(entry, handshake, handshake.instance)
        return await self._identify_permanent(entry, handshake, client)

    async def _identify_instance(
        self, entry: Entry | None, handshake: Handshake, instance: str
    ) -> Admitted:
        row = await self._store.read(workers.instance, instance)
        expected = row["token_hash"] if row is not None and row["token_hash"] else NO_SECRET
        right = hmac.compare_digest(expected, hash_of(handshake.password))
        if not right or row is None or row["worker"] != handshake.name:
            raise HandshakeRefused(401, WRONG_CREDENTIALS)
        life = entry.life if entry is not None else None
        current = life is not None and life.instance is not None and life.instance.id == instance
        if not current or handshake.epoch != row["epoch"]:
            if self._hold.reason is not None:  # the instance ends with its agent
                raise HandshakeRefused(503, self._hold.reason, HOLD_RETRY_S)
            raise HandshakeRefused(
                410, f"instance {instance} of {handshake.name} is over: do not come back"
            )
        self._pace(handshake.name)
        if handshake.session is None or not await self._store.write(
            workers.bind_session, instance, hash_of(handshake.session)
        ):
            await self._report_theft(handshake.name, instance)
            raise HandshakeRefused(401, WRONG_CREDENTIALS)
        return Admitted(handshake.name, instance, row["epoch"])

    async def _report_theft(self, worker: str, instance: str) -> None:
        """Report that a second session used the instance's token: the first may be the thief's.

        The instance ends, and people are notified.
        """
        cause = "its one-time token was used a second time, by another process"
        event = events.Compromised(at=self._clock.now(), instance=instance, cause=cause)
        with contextlib.suppress(NotFound):
            await self._controller.handle(worker, event)

    async def _identify_permanent(
        self, entry: Entry | None, handshake: Handshake, client: str
    ) -> Admitted:
        right = await self._passwords.is_right(entry, handshake.password, client)
        if not right or entry is None:
            raise HandshakeRefused(401, WRONG_CREDENTIALS)
        self._pace(handshake.name)
        life = entry.life
        if life.instance is not None and life.policy.permanent:
            return Admitted(handshake.name, life.instance.id, life.epoch)
        return Admitted(handshake.name, new_ulid(int(self._clock.now() * 1000)), None)


def _client_of(websocket: WebSocket) -> str:
    return client_of(websocket.client.host if websocket.client else "")


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))


def _refuse_browsers(websocket: WebSocket) -> None:
    """Raise HandshakeRefused for a request with an Origin.

    Cross-site WebSockets carry one (CVE-2024-23898), agents send none.
    """
    if "origin" in websocket.headers:
        raise HandshakeRefused(403, "agents do not come from web pages")
