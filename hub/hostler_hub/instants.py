"""Instants as the REST API shows them."""

from __future__ import annotations

from datetime import UTC, datetime


def instant(at: float | None) -> str | None:
    """ISO 8601 in UTC, with milliseconds."""
    if at is None:
        return None
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
