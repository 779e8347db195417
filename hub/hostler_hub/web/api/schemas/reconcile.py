"""Answers about what providers have, and what the hub knows."""

from hostler_hub.workers.reconcile.views import (
    CheckedView,
    FindingView,
    ForgetResults,
    Forgotten,
    Reconciliation,
    UnansweredView,
)
from hostler_hub.workers.views import (
    EvidenceList,
    EvidenceView,
)

__all__ = [
    "CheckedView",
    "EvidenceList",
    "EvidenceView",
    "FindingView",
    "ForgetResults",
    "Forgotten",
    "Reconciliation",
    "UnansweredView",
]
