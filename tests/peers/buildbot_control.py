"""Runs inside a stock Buildbot master: takes orders from the tests over an inherited socket.

One JSON object a line, both ways. Orders: {"id", "steps": [[class, arguments], ...]} runs a build,
{"stop": reason} stops the one that runs, {"cut": true} drops the worker's connection. Answers:
{"port"} when the master listens, {"id", "results", "steps", "builds"} when a build is over.
"""

from __future__ import annotations

import json
import os
import socket

from buildbot.plugins import schedulers, steps, util
from buildbot.process import results
from buildbot.process.buildstep import BuildStep
from buildbot.util.service import BuildbotService
from twisted.internet import defer, protocol, reactor
from twisted.protocols.basic import LineOnlyReceiver

BUILDER = "tests"
WORKER = "stranger"
PASSWORD = "a password"


class GivenSteps(BuildStep):
    """Puts the steps that the order names into the running build."""

    name = "given"

    def run(self):
        given = json.loads(self.getProperty("steps"))
        made = [getattr(steps, name)(**arguments) for name, arguments in given]
        self.build.addStepsAfterCurrentStep(made)
        return defer.succeed(results.SUCCESS)


class Lines(LineOnlyReceiver):
    MAX_LENGTH = 1 << 24
    delimiter = b"\n"

    def lineReceived(self, line):
        obeyed = defer.ensureDeferred(self.factory.control.obey(json.loads(line)))
        obeyed.addErrback(lambda failure: self.say(error=failure.getTraceback()))

    def connectionMade(self):
        self.factory.control.lines = self

    def say(self, **answer):
        self.sendLine(json.dumps(answer).encode())


class Control(BuildbotService):
    name = "control"
    lines = None

    @defer.inlineCallbacks
    def startService(self):
        factory = protocol.Factory.forProtocol(Lines)
        factory.control = self
        descriptor = int(os.environ["CONTROL_FD"])
        reactor.adoptStreamConnection(descriptor, socket.AF_UNIX, factory)
        os.close(descriptor)  # the reactor has its own
        yield super().startService()
        self._tell_port()

    def _tell_port(self):
        dispatchers = list(self.master.msgmanager.dispatchers.values())
        if not dispatchers or dispatchers[0].port is None:  # workers are configured after services
            reactor.callLater(0.01, self._tell_port)
            return
        self.lines.say(port=dispatchers[0].port.getHost().port)

    async def obey(self, order):
        if "steps" in order:
            await self._build(order["id"], order["steps"])
        elif "stop" in order:
            for build in await self.master.data.get(("builds",)):
                if not build["complete"]:
                    at = ("builds", str(build["buildid"]))
                    await self.master.data.control("stop", {"reason": order["stop"]}, at)
        elif "cut" in order:
            self.master.workers.workers[WORKER].conn.loseConnection()

    async def _build(self, number, given):
        builder = await self.master.data.updates.findBuilderId(BUILDER)
        properties = {"steps": (json.dumps(given), "test")}
        over = defer.Deferred()
        consumer = await self.master.mq.startConsuming(
            lambda _, buildset: over.called or over.callback(buildset),
            ("buildsets", None, "complete"),
        )
        await self.master.data.updates.addBuildset(
            waited_for=False,
            builderids=[builder],
            reason=f"order {number}",
            properties=properties,
            sourcestamps=[{"codebase": "", "repository": "", "branch": None, "revision": None,
                           "project": ""}],
        )  # fmt: skip
        buildset = await over
        consumer.stopConsuming()
        await self._tell(number, buildset)

    async def _tell(self, number, buildset):
        requests = await self.master.data.get(("buildrequests",))
        mine = [each for each in requests if each["buildsetid"] == buildset["bsid"]]
        builds = await self.master.data.get(("buildrequests", mine[0]["buildrequestid"], "builds"))
        last = max(builds, key=lambda build: build["number"])
        told = []
        for step in await self.master.data.get(("builds", last["buildid"], "steps")):
            logs = {}
            for log in await self.master.data.get(("steps", step["stepid"], "logs")):
                content = await self.master.data.get(("logs", log["logid"], "contents"))
                logs[log["slug"]] = content["content"] if content else ""
            told.append({"name": step["name"], "results": step["results"], "logs": logs})
        names = [step["name"] for step in told]  # the master's own steps come first
        properties = await self.master.data.get(("builds", last["buildid"], "properties"))
        self.lines.say(
            id=number,
            results=buildset["results"],
            steps=told[names.index(GivenSteps.name) + 1 :],
            builds=len(builds),
            properties={name: value for name, (value, _) in properties.items()},
        )


def configuration(worker_plugin):
    """What master.cfg says."""
    factory = util.BuildFactory([GivenSteps()])
    return {
        "workers": [worker_plugin.Worker(WORKER, PASSWORD)],
        # Zero picks a free port; this protocol's server takes a number only, no interface.
        "protocols": {"msgpack_experimental_v7": {"port": 0}},
        "builders": [util.BuilderConfig(name=BUILDER, workernames=[WORKER], factory=factory)],
        # A builder without one is refused; nothing ever pulls it.
        "schedulers": [schedulers.Triggerable(name="unused", builderNames=[BUILDER])],
        "services": [Control()],
        "buildbotNetUsageData": None,
        "db": {"db_url": "sqlite:///state.sqlite"},
    }
