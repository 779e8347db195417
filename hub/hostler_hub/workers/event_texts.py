"""The texts of events come from agents, providers and people, and become the worker's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from hostler_hub.lifecycle import events
from hostler_hub.specs.printable import escape_controls

E = TypeVar("E", bound=events.Event)

_TEXTS = ("cause", "error", "reason", "evidence")


def escape_texts(event: E) -> E:
    """The event with the control characters of its texts written as codes."""
    changed: dict[str, Any] = {}
    for name in _TEXTS:
        text = getattr(event, name) if name in event.__dataclass_fields__ else None
        if isinstance(text, str) and not text.isprintable():
            changed[name] = escape_controls(text)
    return replace(event, **changed) if changed else event
