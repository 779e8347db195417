"""Answers about workers, and what orders about them changed."""

from hostler_hub.workers.order_views import (
    DefineResult,
    DefineResults,
    ModeResult,
    ModeResults,
    ModeState,
    RemoveResult,
    RemoveResults,
    StateResult,
    StateResults,
)
from hostler_hub.workers.views import (
    AdmissionView,
    DefinitionView,
    EventList,
    EventView,
    RefusalList,
    RefusalView,
    WorkerLookup,
    WorkerPage,
    WorkerReasons,
    WorkerView,
)

__all__ = [
    "AdmissionView",
    "DefineResult",
    "DefineResults",
    "DefinitionView",
    "EventList",
    "EventView",
    "ModeResult",
    "ModeResults",
    "ModeState",
    "RefusalList",
    "RefusalView",
    "RemoveResult",
    "RemoveResults",
    "StateResult",
    "StateResults",
    "WorkerLookup",
    "WorkerPage",
    "WorkerReasons",
    "WorkerView",
]
