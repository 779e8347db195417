"""Random simulation from the command line: `make simulate SEEDS=1000`, `make simulate SEED=7`."""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from simulation.generator import Plan, run
from simulation.world import World

REPLAY = "make simulate SEED="


def attempt(seed: int) -> str | None:
    """What went wrong with a seed, or None."""
    warnings.simplefilter("ignore")
    try:
        run(seed)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told with its seed
        return f"{Plan.of(seed)}\n  {type(error).__name__}: {str(error)[:2000]}"
    return None


def replay(seed: int) -> int:
    """One seed with its whole history."""
    worlds: list[World] = []
    try:
        run(seed, worlds.append)
    except Exception as error:  # noqa: BLE001 - see attempt()
        print(*(line for world in worlds for line in world.trace), sep="\n")
        print(f"{type(error).__name__}: {error}")
        return 1
    (world,) = worlds
    print(*world.trace, sep="\n")
    print(f"all invariants hold; {world.observer.checks} commits, {world.hubs} hubs")
    return 0


def sweep(seeds: range, jobs: int) -> int:
    """Many seeds, side by side; prints how to replay those that fail."""
    began, failed = time.monotonic(), 0
    with ProcessPoolExecutor(jobs) as pool:
        for seed, trouble in zip(seeds, pool.map(attempt, seeds, chunksize=5), strict=True):
            if trouble is not None:
                failed += 1
                print(f"FAILED {trouble}\n  replay: {REPLAY}{seed}", flush=True)
    print(f"{len(seeds)} seeds, {failed} failed, {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one, and print its history")
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="from which on")
    parser.add_argument("--jobs", type=int, default=min(8, os.cpu_count() or 1))
    given = parser.parse_args()
    if given.seed is not None:
        return replay(given.seed)
    return sweep(range(given.first, given.first + given.seeds), given.jobs)


if __name__ == "__main__":
    sys.exit(main())
