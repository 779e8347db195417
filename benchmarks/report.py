"""What was measured, for people and for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.rows import Row

LATEST = Path(__file__).parent / "results" / "latest.json"

_HEADINGS = ("", "value", "peer or floor", "ratio", "goal", "")


def machine() -> dict[str, Any]:
    """What the figures depend on, and nothing that names the machine."""
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "load_1min": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def table(rows: Sequence[Row]) -> str:
    lines = [_HEADINGS, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def write(rows: Sequence[Row], facts: dict[str, Any], took_s: float, path: Path = LATEST) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"machine": facts, "took_s": round(took_s), "rows": [row.as_json() for row in rows]}
    path.write_text(json.dumps(result, indent=2) + "\n")


def _cells(row: Row) -> tuple[str, ...]:
    reference = "-"
    if row.reference is not None:
        reference = f"{_figure(row.reference.value)} {row.unit} ({row.reference.name})"
    return (
        row.name,
        f"{_figure(row.value)} {row.unit}",
        reference,
        "-" if row.ratio is None else f"{_figure(row.ratio)}x",
        str(row.goal),
        "met" if row.met else "NOT MET",
    )


def _figure(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
