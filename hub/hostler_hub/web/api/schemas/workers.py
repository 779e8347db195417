"""Workers: definitions, states, events, and what was ordered of them."""

from typing import Any, Literal

from pydantic import ConfigDict

from hostler_hub.web.api.schemas.base import Shape, WorkerMode, WorkerState

Scalar = str | int | float | bool | None


class Quarantine(Shape):
    """Why and until when a worker gets no new work."""

    until: str
    reason: str | None
    delay_s: float


class Missing(Shape):
    """Since when an instance that should be attached is not."""

    since: str
    reason: str | None


class Difference(Shape):
    """One thing of a worker's machine that is not as its definition expects."""

    what: str
    expected: str
    found: str


class ToolFound(Shape):
    """What a worker's agent found of a tool."""

    path: str | None
    version: str | None
    problem: str | None


class AdmissionView(Shape):
    """How a worker's machine compares with what is expected of it; `unknown` until it attaches."""

    state: Literal["unknown", "asking", "met", "unmet"]
    at: str | None
    differences: list[Difference]
    clock_skew_s: float | None
    tools: dict[str, ToolFound]


class Expectations(Shape):
    """What is expected of a worker's machine."""

    clock_skew_s: float | None
    disk_free_mb: int | None
    long_paths: bool
    tools: dict[str, str]
    facts: list[str]


class Definition(Shape):
    """A worker's definition as stored; its password never leaves the hub."""

    name: str
    driver: str
    driver_options: dict[str, Any]
    properties: dict[str, Scalar]
    default_properties: dict[str, Scalar]
    labels: list[str]
    priority: int
    group: str | None
    weight: float
    max_builds: int
    max_uses: int | None
    max_uptime: float | None
    build_wait_timeout: float
    missing_timeout: float | None
    notify_on_missing: list[str]
    keepalive_interval: float | None
    check_instance_interval: float
    expects: Expectations | None
    description: str | None
    password_ref: dict[str, str] | None
    has_password: bool


class WorkerReasons(Shape):
    """Why a worker is not started, used, stopped now; null for what it is."""

    not_started: str | None
    not_used: str | None
    not_stopped: str | None


class LeaseBrief(Shape):
    """Who has a worker, or waits for it, and why."""

    id: str
    state: Literal["waiting", "held"]
    holder: str
    reason: str | None
    since: str
    until: str
    keep: bool


class WorkerView(Shape):
    """One worker: what is wanted of it and how it is."""

    name: str
    driver: str
    description: str | None
    mode: WorkerMode
    mode_reason: str | None
    mode_by: str | None
    mode_at: str | None
    mode_until: str | None
    state: WorkerState
    state_since: str
    attached: bool
    instance: str | None
    epoch: int
    up_since: str | None
    uses: int
    retiring: str | None
    failed_starts: int
    admission: AdmissionView | None
    quarantine: Quarantine | None
    missing: Missing | None
    lease: LeaseBrief | None
    incidents: dict[str, str]
    removing: bool
    last_error: str | None
    builds: list[str]
    properties: dict[str, Any]
    labels: list[str]
    max_builds: int
    definition: Definition
    facts: dict[str, Any]
    revision: int
    why: WorkerReasons


class Connection(Shape):
    """How a person gets to what they have leased: as much as the driver and the agent tell."""

    driver: str
    instance: str
    epoch: int
    handle: dict[str, Any] | None
    driver_options: dict[str, Any]
    facts: dict[str, Any]


class WorkerPage(Shape):
    """Workers by name; `next` goes into `after`."""

    items: list[WorkerView]
    next: str | None


class WorkerLookup(Shape):
    """Workers that were asked for by name."""

    items: list[WorkerView]
    unknown: list[str]


class Event(Shape):
    """One transition of a worker."""

    at: str
    event: str
    from_: str
    to: str
    cause: str | None
    instance: str | None
    epoch: int

    model_config = ConfigDict(
        extra="forbid", alias_generator=lambda name: name.rstrip("_"), populate_by_name=True
    )


class Refusal(Shape):
    """Attempts to attach, all alike, that were refused."""

    name: str
    client: str
    reason: str
    first_at: str
    last_at: str
    count: int


class RefusalList(Shape):
    """Refused attempts, latest first."""

    items: list[Refusal]


class EventList(Shape):
    """Transitions, newest first."""

    items: list[Event]


class DefineResult(Shape):
    """What defining one worker changed."""

    name: str
    changed: bool
    created: bool
    before: Definition | None
    after: Definition


class DefineResults(Shape):
    """One result per definition, in the request's order."""

    results: list[DefineResult]


class RemoveResult(Shape):
    """What removing one worker changed."""

    name: str
    changed: bool
    state: Literal["absent", "removing"]


class RemoveResults(Shape):
    """One result per name, in the request's order."""

    results: list[RemoveResult]


class ModeState(Shape):
    """What is wanted of a worker, and why."""

    mode: WorkerMode
    reason: str | None
    until: str | None


class ModeResult(Shape):
    """What setting one worker's mode changed."""

    name: str
    changed: bool
    before: ModeState
    after: ModeState


class ModeResults(Shape):
    """One result per name, in the request's order."""

    results: list[ModeResult]


class StateResult(Shape):
    """What asking for an instance, or its end, changed."""

    name: str
    changed: bool
    state: WorkerState


class StateResults(Shape):
    """One result per name, in the request's order."""

    results: list[StateResult]
