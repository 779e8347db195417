"""What the REST API shows of a group: its definition, what holds now, and what there is."""

from __future__ import annotations

from typing import Any

from hostler_hub.instants import instant
from hostler_hub.scheduling.pools import Census, Pool


def group_view(pool: Pool, counted: Census, now: float) -> dict[str, Any]:
    holds, budget, breaker = pool.numbers(now), pool.budget(counted, now), pool.breaker
    held = pool.held(counted, now)
    return {
        "name": pool.name,
        "definition": pool.group and pool.group.public(),
        "now": {
            "min_idle": holds.min_idle,
            "max_instances": holds.max_instances,
            "schedule": holds.schedule,
            "until": instant(holds.until),
        },
        "workers": counted.workers,
        "instances": counted.instances,
        "starting": counted.starting,
        "up": counted.up,
        "idle": len(counted.idle),
        "stopping": counted.stopping,
        "lost": counted.detached,
        "leases": counted.leases,
        "starts_last_minute": len(pool.starts),
        "startable": {
            "starts": budget.starts,
            "rule": budget.rule or None,
            "why": budget.why or None,
            "until": instant(budget.until),
        },
        "breaker": {
            "state": breaker.state(now),
            "failures": breaker.failures,
            "until": instant(breaker.open_until),
            "error": breaker.error or None,
        },
        "held_since": instant(pool.held_since) if held else None,
    }
