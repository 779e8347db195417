"""Assignments of processes that exist already, and may end at that moment."""

import contextlib
import random
import subprocess
import sys
import time

from hostler_agent.jobs.plan import Resources
from hostler_agent.jobs.windows import job_object
from hostler_agent.win32 import api

TERMINATE, QUERY_LIMITED, SYNCHRONIZE = 0x0001, 0x1000, 0x00100000
INTERNAL_ERROR = 1359


def exiting(count):
    """As many processes as told, each assigned at about the time of its end; what came of it."""
    chance = random.Random(5)
    seen = {"attached": 0, "ended": 0, "denied": 0, "failed": []}
    real = job_object._assign

    def counting(job, process):
        try:
            return real(job, process)
        except OSError as error:
            seen["denied"] += error.winerror == api.ERROR_ACCESS_DENIED
            raise

    job_object._assign = counting
    for _ in range(count):
        process = start_exiting()
        job = job_object.JobObject(Resources())
        time.sleep(chance.random() * 0.03)
        try:
            attached = job.attach(api.Handle(int(process._handle)))
            seen["attached" if attached else "ended"] += 1
        except OSError as error:
            seen["failed"].append(str(error))
        process.wait()
        job.close()
    return seen


def start_exiting():
    """Wine's server now and then refuses a process when it has very much to do."""
    for _ in range(20):
        try:
            return subprocess.Popen(["cmd", "/d", "/c", "exit"])
        except OSError as error:  # noqa: PERF203
            if error.winerror != INTERNAL_ERROR:
                raise
            time.sleep(0.1)
    raise RuntimeError("Wine starts no processes")


def ended_in_between():
    """It has ended after the first look: Windows denies the assignment."""
    process = subprocess.Popen(["cmd", "/d", "/c", "exit"])
    process.wait()
    job = job_object.JobObject(Resources())
    job_object.exit_code = lambda _process: api.STILL_ACTIVE
    with contextlib.closing(job):
        return job.attach(api.Handle(int(process._handle)))


def not_allowed():
    """A process that lives on, and that we may not assign."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    weak = job_object.open_process(process.pid, QUERY_LIMITED | SYNCHRONIZE)
    job = job_object.JobObject(Resources())
    try:
        return job.attach(weak)
    except OSError as error:
        return {"winerror": error.winerror}
    finally:
        process.kill()
        process.wait()
        job.close()


def into_a_closed_job():
    job = job_object.JobObject(Resources())
    number = job.handle.value
    job.close()
    process = subprocess.Popen(["cmd", "/d", "/c", "pause"], stdin=subprocess.PIPE)
    job.handle = api.Handle(number + 0x10000)
    try:
        return job.attach(api.Handle(int(process._handle)))
    except OSError as error:
        return {"winerror": error.winerror}
    finally:
        process.kill()


def suspended_start():
    """The way of an old Windows: never runs outside of the job, and is in it when it runs."""
    import asyncio

    import jobs

    from hostler_agent.jobs.windows import spawn

    spawn._born_in = refuse
    return asyncio.run(jobs.run_child(["is_in_job"]))


def refuse(_start, _job):
    raise OSError(22, "not supported", None, api.ERROR_NOT_SUPPORTED)
