"""Answers about groups."""

from hostler_hub.scheduling.group_views import (
    DefineGroupResult,
    DefineGroupResults,
    GroupList,
    GroupView,
    RemoveGroupResult,
    RemoveGroupResults,
)

__all__ = [
    "DefineGroupResult",
    "DefineGroupResults",
    "GroupList",
    "GroupView",
    "RemoveGroupResult",
    "RemoveGroupResults",
]
