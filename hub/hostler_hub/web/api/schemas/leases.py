"""Answers about leases of people."""

from hostler_hub.workers.lease_views import (
    Connection,
    LeaseList,
    LeaseResult,
    LeaseView,
)

__all__ = [
    "Connection",
    "LeaseList",
    "LeaseResult",
    "LeaseView",
]
