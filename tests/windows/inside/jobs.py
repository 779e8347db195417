"""Real jobs in Windows: what the tests see of them, as JSON."""

import asyncio
import contextlib
import gc
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path

from hostler_agent.jobs import choose_containment
from hostler_agent.jobs.errors import JobError
from hostler_agent.jobs.plan import JobLimits, JobPlan, Resources, command_argv
from hostler_agent.jobs.receipt import Ended
from hostler_agent.jobs.run import Job
from hostler_agent.jobs.windows import job_object
from hostler_agent.win32 import api

CHILD = str(Path(__file__).with_name("child.py"))


class Sink:
    """Keeps what it gets; `until` waits for a text in it."""

    def __init__(self, takes=True):
        self.streams = {"stdout": b"", "stderr": b""}
        self.stops = []
        self.largest = 0
        self.taking = asyncio.Event()
        if takes:
            self.taking.set()
        self.news = asyncio.Event()

    async def take_output(self, stream, data):
        self.largest = max(self.largest, len(data))
        self.streams[stream] += data
        self.news.set()
        await self.taking.wait()

    async def take_log(self, name, data):
        self.streams[name] = self.streams.get(name, b"") + data
        self.news.set()

    async def stopping(self, why):
        self.stops.append(why)

    async def until(self, text):
        while text not in self.streams["stdout"]:
            self.news.clear()
            await self.news.wait()

    @property
    def text(self):
        return self.streams["stdout"].decode("utf-8", "replace")

    @property
    def pids(self):
        lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.text).splitlines()
        return [int(line.split()[1]) for line in lines if line.startswith("pid ")]


def plan_of(command, workdir=None, environment=None, limits=None, **options):
    return JobPlan(
        "c1",
        command_argv(command),
        workdir or tempfile.gettempdir(),
        {**os.environ, **(environment or {})},
        JobLimits(**(limits or {})),
        is_shell=isinstance(command, str),
        **options,
    )


def child(*words):
    return [sys.executable, "-S", CHILD, *map(str, words)]


def living(pids):
    """Those of them that are alive: a dead one can be opened while somebody has a handle."""
    alive = []
    for pid in pids:
        with (
            contextlib.suppress(OSError),
            contextlib.closing(job_object.open_process(pid, 0x00101000)) as process,
        ):
            if not api.is_signaled(process):
                alive.append(pid)
    return alive


def told(outcome, sink, **more):
    receipt = outcome.receipt
    return {
        "ended": receipt.ended.value,
        "exit_code": receipt.exit_code,
        "rc": outcome.return_code,
        "containment": receipt.containment,
        "pids_seen": receipt.pids_seen,
        "usage": asdict(receipt.usage),
        "survivors": [asdict(one) for one in receipt.survivors],
        "held_output": list(receipt.held_output),
        "stdout": sink.streams["stdout"].decode("latin-1"),
        "stderr": sink.streams["stderr"].decode("latin-1"),
        "stops": sink.stops,
        "told_pids": len(sink.pids),
        "living": living(sink.pids),
        **more,
    }


@contextlib.asynccontextmanager
async def containment():
    made = choose_containment("auto", "test")
    try:
        yield made
    finally:
        await made.aclose()


async def run(command, options=None):
    """One job to its end."""
    sink = Sink()
    async with containment() as chosen:
        options = dict(options or {})
        if "stdin" in options:
            options["stdin"] = b"x" * options["stdin"]
        try:
            outcome = await Job(plan_of(command, **options), chosen, sink).run()
        except JobError as error:
            return {"error": type(error).__name__, "text": str(error)}
        return told(outcome, sink)


async def run_child(words, options=None):
    return await run(child(*words), options)


async def inherited_handles():
    """An agent's other handles, inheritable by mistake of whoever made them: does a job get one?

    Their numbers are high, so that the child has no handle of its own there.
    """
    held = [api.create_file("NUL", api.GENERIC_READ, 3, 0, api.inheritable())]
    while held[-1].value < 0x2000:
        held.append(api.create_file("NUL", api.GENERIC_READ, 3, 0, api.inheritable()))
    value = held[-1].value
    plain = await asyncio.to_thread(
        subprocess.run,
        child("knows_handle", value),
        stdout=subprocess.PIPE,
        close_fds=False,
        check=True,
    )
    ours = await run_child(["knows_handle", value])
    return {"plain": plain.stdout.decode(), "ours": ours["stdout"]}


async def too_large():
    """Commands that Windows, or cmd.exe, would cut or refuse without a word."""
    long = "x" * 33_000
    tried = [
        (["cmd", long], {}),
        ("echo " + long[:8_200], {}),
        (["cmd"], {"environment": {"A": long}}),
    ]
    return [await run(*one) for one in tried]


async def interrupt(words, limits, use_pty=False):
    """One job that is interrupted as soon as it says Ready."""
    sink = Sink()
    async with containment() as chosen:
        job = Job(plan_of(child(*words), limits=limits, use_pty=use_pty), chosen, sink)
        running = asyncio.create_task(job.run())
        await sink.until(b"Ready")
        begun = time.monotonic()
        job.interrupt(Ended.KILLED, "enough")
        outcome = await running
        return told(outcome, sink, took_s=time.monotonic() - begun)


async def escapes(count):
    """As many jobs as told, one after the other; each leaves a detached grandchild and exits."""
    sinks, outcomes = [], []
    begun = time.monotonic()
    async with containment() as chosen:
        for _ in range(count):
            sink = Sink()
            outcomes.append(await Job(plan_of(child("escape")), chosen, sink).run())
            sinks.append(sink)
        took_s = time.monotonic() - begun
        pids = [pid for sink in sinks for pid in sink.pids]
        return {
            "codes": sorted({outcome.receipt.exit_code for outcome in outcomes}),
            "told_pids": len(pids),
            "living": living(pids),
            "survivors": [asdict(o) for out in outcomes for o in out.receipt.survivors],
            "least_seen": min(outcome.receipt.pids_seen for outcome in outcomes),
            "took_s": took_s,
        }


async def held_back(size):
    """A flood that nobody takes: how much of it is read ahead?"""
    sink = Sink(takes=False)
    async with containment() as chosen:
        job = Job(plan_of(child("flood", size)), chosen, sink)
        running = asyncio.create_task(job.run())
        while not sink.streams["stdout"]:
            sink.news.clear()
            await sink.news.wait()
        before = len(sink.streams["stdout"])
        await asyncio.sleep(1)
        held = len(sink.streams["stdout"])
        sink.taking.set()
        begun = time.monotonic()
        outcome = await running
        result = told(outcome, sink, before=before, held=held, took_s=time.monotonic() - begun)
        return {**result, "stdout": len(result["stdout"]), "largest": sink.largest}


async def cancelled():
    """run() is cancelled in the middle: nothing may live on."""
    sink = Sink()
    async with containment() as chosen:
        running = asyncio.create_task(Job(plan_of(child("tree", 10)), chosen, sink).run())
        await sink.until(b"Ready")
        running.cancel()
        await asyncio.wait([running])
        return {
            "cancelled": running.cancelled(),
            "pids": len(sink.pids),
            "living": living(sink.pids),
        }


async def side_by_side(count):
    """Many at once; each gets its own output."""
    sinks = [Sink() for _ in range(count)]
    async with containment() as chosen:
        jobs = [
            Job(plan_of(["cmd", "/c", f"echo {number}"]), chosen, sink)
            for number, sink in enumerate(sinks)
        ]
        begun = time.monotonic()
        await asyncio.gather(*(job.run() for job in jobs))
        return {
            "stdout": [sink.text.strip() for sink in sinks],
            "took_s": time.monotonic() - begun,
        }


def lost_handles():
    """Handles that are still open when 20 jobs are over (Wine does not count a process's)."""

    async def some():
        async with containment() as chosen:
            for _ in range(20):
                await Job(plan_of(["cmd", "/c", "echo x"], stdin=b"y"), chosen, Sink()).run()
            for _ in range(5):
                await Job(plan_of("echo x>CON", use_pty=True), chosen, Sink()).run()

    asyncio.run(some())
    for thread in threading.enumerate():
        if thread.name == "close pseudo console":
            thread.join()
    return sum(isinstance(one, api.Handle) and one.is_open for one in gc.get_objects())


def agent_with_tree():
    """What is killed by the tests: prints its job's pids, and waits for ever."""

    async def serve():
        async with containment() as chosen:
            sink = Sink()
            running = asyncio.create_task(Job(plan_of(child("tree", 20)), chosen, sink).run())
            await sink.until(b"Ready")
            print(f"pids {' '.join(map(str, sink.pids))}", flush=True)
            await running

    asyncio.run(serve())


def living_of(pids):
    return living(pids)


def calls_made():
    """What SetInformationJobObject is given. Wine does not know CPU rates, so it is spared them."""
    made = []
    real = job_object._set

    def recording(handle, kind, information, size):
        found = information._obj
        if kind == job_object._CPU_RATE:
            made.append({"flags": found.ControlFlags, "rate": found.CpuRate})
            return 1
        basic = found.BasicLimitInformation
        made.append(
            {
                "flags": basic.LimitFlags,
                "processes": basic.ActiveProcessLimit,
                "memory_bytes": found.JobMemoryLimit,
            }
        )
        return real(handle, kind, information, size)

    job_object._set = recording
    job_object.JobObject(Resources(memory_bytes=64 << 20, processes=7, cpu_percent=50)).close()
    return made
