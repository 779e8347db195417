"""Answers about decisions."""

from hostler_hub.scheduling.decision_views import (
    DecisionPage,
    DecisionView,
)

__all__ = [
    "DecisionPage",
    "DecisionView",
]
