"""The stock Buildbot master's configuration: builders of ``true``, and somebody who orders builds.

Runs inside the master. A Unix socket takes orders, one JSON object a line, such as
``{"builder": "eight", "count": 30}``, and tells in the same way of every worker that attached and
every build that finished, with the time at which the master knew.
"""

# ruff: noqa: N802 - the methods' names are Twisted's and Buildbot's

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from buildbot.plugins import steps, util
from buildbot.plugins import worker as workers
from buildbot.schedulers.base import ReconfigurableBaseScheduler
from twisted.internet import defer, endpoints, protocol, reactor
from twisted.protocols.basic import LineOnlyReceiver


class Orders(LineOnlyReceiver):
    """One who orders builds and wants to hear of them."""

    delimiter = b"\n"

    def connectionMade(self) -> None:
        self.factory.listeners.append(self)

    def connectionLost(self, reason: object = None) -> None:  # noqa: ARG002
        self.factory.listeners.remove(self)

    def lineReceived(self, line: bytes) -> None:
        order = json.loads(line)
        self.factory.scheduler.order(order["builder"], order["count"])


class Desk(protocol.Factory):
    protocol = Orders

    def __init__(self, scheduler: Ordered) -> None:
        self.scheduler = scheduler
        self.listeners: list[Orders] = []

    def tell(self, **news: Any) -> None:
        line = json.dumps({**news, "at": time.time()}).encode()
        for listener in self.listeners:
            listener.sendLine(line)


class Ordered(ReconfigurableBaseScheduler):
    """Adds as many buildsets as it is told to."""

    def checkConfig(self, socket: str, **options: Any) -> None:  # noqa: ARG002
        super().checkConfig(**options)

    @defer.inlineCallbacks
    def reconfigService(self, socket: str, **options: Any) -> Any:
        yield super().reconfigService(**options)
        self._socket = socket

    @defer.inlineCallbacks
    def activate(self) -> Any:
        yield super().activate()
        desk = Desk(self)
        yield endpoints.UNIXServerEndpoint(reactor, self._socket).listen(desk)
        yield self.master.mq.startConsuming(
            lambda _, build: desk.tell(event="finished", results=build["results"]),
            ("builds", None, "finished"),
        )
        yield self.master.mq.startConsuming(
            lambda _, worker: desk.tell(event="attached", worker=worker["name"]),
            ("workers", None, "connected"),
        )

    @defer.inlineCallbacks
    def order(self, builder: str, count: int) -> Any:
        for _ in range(count):
            yield self.addBuildsetForSourceStampsWithDefaults(
                reason="order", builderNames=[builder], waited_for=False
            )


def make(
    port: int, password: str, builders: Mapping[str, list[str]], socket: str
) -> dict[str, Any]:
    """The configuration; ``builders`` are the names of their workers by their own."""
    names = sorted({name for each in builders.values() for name in each})
    factory = util.BuildFactory([steps.ShellCommand(command=["true"], logEnviron=False)])
    return {
        "title": "peer",
        "buildbotNetUsageData": None,
        "protocols": {"msgpack_experimental_v7": {"port": port}},
        "workers": [workers.Worker(name, password) for name in names],
        "builders": [
            util.BuilderConfig(name=name, workernames=own, factory=factory)
            for name, own in builders.items()
        ],
        "schedulers": [Ordered(name="ordered", builderNames=list(builders), socket=socket)],
        # Equal requests would be run as one.
        "collapseRequests": False,
        "db": {"db_url": "sqlite:///state.sqlite"},
    }
