"""Answers about groups and breakers."""

from hostler_hub.scheduling.breaker_views import (
    CloseBreakerResult,
    CloseBreakerResults,
    OpenBreakerList,
    OpenBreakerView,
)
from hostler_hub.scheduling.group_views import (
    DefineGroupResult,
    DefineGroupResults,
    GroupList,
    GroupView,
    RemoveGroupResult,
    RemoveGroupResults,
)

__all__ = [
    "CloseBreakerResult",
    "CloseBreakerResults",
    "DefineGroupResult",
    "DefineGroupResults",
    "GroupList",
    "GroupView",
    "OpenBreakerList",
    "OpenBreakerView",
    "RemoveGroupResult",
    "RemoveGroupResults",
]
