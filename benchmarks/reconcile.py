"""One reconcile of 5,000 instances on EC2 that the ledger knows, over REST.

The region is a small server that answers in pages of a thousand, as EC2 does; beside it, boto3
that reads the same pages and does nothing with them. The ledger is filled while the hub is down: to
start so many takes EC2 itself the better part of an hour.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import hub, reconcile_region
from benchmarks.client import Client
from benchmarks.hub import API
from benchmarks.processes import PROJECT, BenchmarkFailed, running, wait_for
from benchmarks.rows import Goal, Plan, Reference, Row, Samples

GOAL = Goal("value", "at most", 5)
PER_WORKER = 5  # of the plan's
DATABASE = "hub.sqlite3"

_KEY = {"env": "HOSTLER_SECRET_AWS"}
_SETTINGS = {"HOSTLER_SECRET_AWS": "testing"}


def measure(plan: Plan, directory: Path) -> list[Row]:
    count = plan.workers * PER_WORKER
    samples = Samples()
    with _region(count, directory / "region") as url:
        state = directory / "hub"
        _fill(state, count, _options(url))
        with _hub(state) as client:
            for _ in plan.each_round():
                samples.add("floor", _bare(url, count))
                samples.add("ours", _reconcile(client, count))
    floor = Reference("boto3 reading the same pages", samples["floor"])
    return [Row(f"reconcile {count} EC2 instances", "s", samples["ours"], GOAL, floor)]


def _reconcile(client: Client, count: int) -> float:
    began_at = time.perf_counter()
    report = client.post(f"{API}/reconcile", {"drivers": ["ec2"]})
    took_s = time.perf_counter() - began_at
    checked = report["checked"]
    if report["findings"] or report["unanswered"] or str(count) not in str(checked):
        raise BenchmarkFailed(f"reconciled something else: {str(report)[:500]}")
    return took_s


def _bare(url: str, count: int) -> float:
    import boto3  # noqa: PLC0415 - heavy, and nobody else's here

    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    client = boto3.client("ec2", region_name="eu-west-1", endpoint_url=url, **keys)
    began_at = time.perf_counter()
    pages = client.get_paginator("describe_instances").paginate(
        Filters=[{"Name": "instance-state-name", "Values": ["running"]}],
        PaginationConfig={"PageSize": 1000},
    )
    seen = sum(len(page["Reservations"]) for page in pages)
    took_s = time.perf_counter() - began_at
    client.close()
    if seen != count:
        raise BenchmarkFailed(f"the region lists {seen}, not {count}")
    return took_s


# --- the fleet ----------------------------------------------------------------------------------


def _options(url: str) -> dict[str, Any]:
    return {
        "region": "eu-west-1",
        "ami": "ami-12c6146b",
        "instance_types": ["c7i.xlarge"],
        "endpoint_url": url,
        "credentials": {"access_key": _KEY, "secret_key": _KEY},
    }


def _fill(state: Path, count: int, options: dict[str, Any]) -> None:
    """Define the workers by the hub; then write down that each has its instance."""
    names = [reconcile_region.worker(number) for number in range(count)]
    with hub.start(state, _SETTINGS) as fleet:
        for start in range(0, count, 500):
            some = names[start : start + 500]
            fleet.define(some, driver="ec2", driver_options=options)
    now = time.time()
    with contextlib.closing(sqlite3.connect(state / DATABASE)) as database, database:
        for number, name in enumerate(names):
            ulid = reconcile_region.ulid(number)
            handle = {
                "version": 1,
                "id": reconcile_region.instance_id(number),
                "region": options["region"],
                "endpoint_url": options["endpoint_url"],
            }
            database.execute(
                "INSERT INTO instances (id, worker, epoch, created_at, driver, driver_options)"
                " VALUES (?, ?, 1, ?, 'ec2', ?)",
                (ulid, name, now, json.dumps(options)),
            )
            database.execute(
                "UPDATE workers SET state = 'substantiated', state_since = ?, up_since = ?,"
                " epoch = 1, instance_id = ?, handle = ? WHERE name = ?",
                (now, now, ulid, json.dumps(handle), name),
            )


@contextlib.contextmanager
def _region(count: int, directory: Path) -> Iterator[str]:
    port_file = directory / "port"
    argv = [sys.executable, "-P", "-m", "benchmarks.reconcile_region", str(count), str(port_file)]
    with running(argv, directory, {"PYTHONPATH": str(PROJECT)}):

        def look() -> str | None:
            with contextlib.suppress(FileNotFoundError):
                return port_file.read_text()
            return None

        yield f"http://127.0.0.1:{wait_for(look, 'the region')}"


@contextlib.contextmanager
def _hub(state: Path) -> Iterator[Client]:
    """Killed at the end, not stopped: it would have thousands of instances terminated."""
    run_file = state / "hub.json"
    run_file.unlink(missing_ok=True)
    argv = [sys.executable, "-P", "-m", "hostler_hub", "serve"]
    argv += ["--state-dir", str(state), "--port", "0"]
    with running(argv, state, _SETTINGS) as process:

        def look() -> str | None:
            if process.poll() is not None:
                said = (state / "output.log").read_text()[-1000:]
                raise BenchmarkFailed(f"the hub did not start: {said}")
            with contextlib.suppress(FileNotFoundError, ValueError):
                return str(json.loads(run_file.read_text())["url"])
            return None

        client = Client(
            wait_for(look, "the hub's start"), (state / "admin.token").read_text().strip()
        )
        try:
            yield client
        finally:
            client.close()
            process.kill()
