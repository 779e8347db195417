"""Answers about incidents, and the messages about them."""

from hostler_hub.workers.incident_views import (
    DeliveryList,
    DeliveryPage,
    DeliveryView,
    IncidentDetail,
    IncidentPage,
    IncidentView,
)

__all__ = [
    "DeliveryList",
    "DeliveryPage",
    "DeliveryView",
    "IncidentDetail",
    "IncidentPage",
    "IncidentView",
]
