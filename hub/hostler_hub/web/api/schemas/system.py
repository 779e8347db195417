"""The hub itself, who asks it, and its tokens."""

from typing import Literal

from hostler_hub.web.api.schemas.base import Shape, WorkerMode, WorkerState


class Health(Shape):
    """That the hub answers."""

    status: Literal["ok"]
    version: str
    hub: str


class Whoami(Shape):
    """Whose token it is."""

    name: str
    role: Literal["viewer", "submitter", "operator", "admin"]


class WorkerCounts(Shape):
    """How many workers are how."""

    total: int
    by_state: dict[WorkerState, int]
    by_mode: dict[WorkerMode, int]
    attached: int
    missing: int
    quarantined: int


class BuildCounts(Shape):
    """How many builds are under way."""

    queued: int
    running: int


class IncidentCounts(Shape):
    """How many incidents are not over, and how many messages about any do not get through."""

    open: int
    undelivered: int


class Status(Shape):
    """The hub at a glance."""

    version: str
    hub: str
    workers: WorkerCounts
    builds: BuildCounts
    incidents: IncidentCounts


class CreatedToken(Shape):
    """A new token, shown this once."""

    name: str
    role: str
    token: str


class TokenView(Shape):
    """A token without what proves it."""

    name: str
    role: str
    lookup: str
    created_by: str
    created_at: str
    expires_at: str | None


class TokenList(Shape):
    """Every token by name."""

    items: list[TokenView]
