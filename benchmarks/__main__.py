"""`python -m benchmarks [--quick] [NAME ...]`: measures, prints a table, keeps a full run's result.

Exit code 0 when everything could be measured, whether or not every goal is met; 1 when not: then
the rest is printed all the same, but not kept; 2 when wrongly asked.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import (
    agent,
    decisions,
    definitions,
    dispatch,
    docker,
    job_users,
    reconcile,
    report,
    scale,
    ssh,
    substantiate,
    survivors,
    windows,
    worker,
)
from benchmarks.processes import BenchmarkFailed
from benchmarks.rows import QUICK, Plan, Row

Benchmark = Callable[[Plan, Path], list[Row]]

BENCHMARKS: dict[str, Benchmark] = {
    "dispatch": dispatch.measure,
    "decisions": decisions.measure,
    "substantiate": substantiate.measure,
    "docker": docker.measure,
    "ssh": ssh.measure,
    "definitions": definitions.measure,
    "scale": scale.measure,
    "reconcile": reconcile.measure,
    "agent": agent.measure,
    "worker": worker.measure,
    "job_users": job_users.measure,
    "survivors": survivors.measure,
    "windows": windows.measure,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="small counts: does it still work?")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    names = options.names or list(BENCHMARKS)
    began_at = time.monotonic()
    facts = report.machine()
    rows, failures = _measure(names, QUICK if options.quick else Plan())
    print(report.table(rows))
    for failure in failures:
        print(f"benchmarks: {failure}", file=sys.stderr)
    if failures:
        return 1
    if not options.quick and set(names) == set(BENCHMARKS):
        report.write(rows, facts, time.monotonic() - began_at)
    return 0


def _measure(names: Sequence[str], plan: Plan) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    failures = []
    for name in names:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        # Not /tmp, which may be memory: durable results are to cost what a disk costs.
        with tempfile.TemporaryDirectory(prefix="hostler-", dir="/var/tmp") as directory:
            try:
                rows += BENCHMARKS[name](plan, Path(directory) / name)
            except BenchmarkFailed as failure:
                failures.append(f"{name}: {failure}")
    return rows, failures


if __name__ == "__main__":
    sys.exit(main())
