"""The shapes of the API's answers, for its OpenAPI document and the tests that hold answers to it.

Handlers answer with plain data (see `responses`); nothing here runs in a request. Instants are
ISO 8601 in UTC with Z; `_s` are seconds.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

WorkerMode = Literal["active", "paused", "draining", "stopped"]
WorkerState = Literal["latent", "substantiating", "substantiated", "insubstantiating"]
BuildState = Literal["queued", "running", "success", "failure", "exception", "cancelled"]
StepState = Literal["pending", "running", "success", "failure", "exception", "cancelled", "skipped"]
DecisionKind = Literal["start", "stop", "match", "skip", "quarantine", "breaker", "hold"]
Scalar = str | int | float | bool | None


class _View(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Health(_View):
    """That the hub answers."""

    status: Literal["ok"]
    version: str
    hub: str


class Whoami(_View):
    """Whose token it is."""

    name: str
    role: Literal["viewer", "submitter", "operator", "admin"]


class WorkerCounts(_View):
    """How many workers are how."""

    total: int
    by_state: dict[WorkerState, int]
    by_mode: dict[WorkerMode, int]
    attached: int
    missing: int
    quarantined: int


class BuildCounts(_View):
    """How many builds are under way."""

    queued: int
    running: int


class IncidentCounts(_View):
    """How many incidents are not over, and how many messages about any do not get through."""

    open: int
    undelivered: int


class Status(_View):
    """The hub at a glance."""

    version: str
    hub: str
    workers: WorkerCounts
    builds: BuildCounts
    incidents: IncidentCounts


class Quarantine(_View):
    """Why and until when a worker gets no new work."""

    until: str
    reason: str | None
    delay_s: float


class Missing(_View):
    """Since when an instance that should be attached is not."""

    since: str
    reason: str | None


class Difference(_View):
    """One thing of a worker's machine that is not as its definition expects."""

    what: str
    expected: str
    found: str


class ToolFound(_View):
    """What a worker's agent found of a tool."""

    path: str | None
    version: str | None
    problem: str | None


class AdmissionView(_View):
    """How a worker's machine compares with what is expected of it; `unknown` until it attaches."""

    state: Literal["unknown", "asking", "met", "unmet"]
    at: str | None
    differences: list[Difference]
    clock_skew_s: float | None
    tools: dict[str, ToolFound]


class Expectations(_View):
    """What is expected of a worker's machine."""

    clock_skew_s: float | None
    disk_free_mb: int | None
    long_paths: bool
    tools: dict[str, str]
    facts: list[str]


class LeaseBrief(_View):
    """Who has a worker, or waits for it, and why."""

    id: str
    state: Literal["waiting", "held"]
    holder: str
    reason: str | None
    since: str
    until: str
    keep: bool


class Definition(_View):
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


class WorkerReasons(_View):
    """Why a worker is not started, used, stopped now; null for what it is."""

    not_started: str | None
    not_used: str | None
    not_stopped: str | None


class WorkerView(_View):
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


class Connection(_View):
    """How a person gets to what they have leased: as much as the driver and the agent tell."""

    driver: str
    instance: str
    epoch: int
    handle: dict[str, Any] | None
    driver_options: dict[str, Any]
    facts: dict[str, Any]


class Lease(_View):
    """A person's lease of a worker; without `granted_at` they wait, or have waited, for it."""

    id: str
    worker: str
    state: Literal["waiting", "held", "ended"]
    holder: str
    reason: str | None
    keep: bool
    ttl_s: float
    asked_at: str
    granted_at: str | None
    until: str
    why: str | None
    connection: Connection | None
    ended_at: str | None
    end_reason: str | None


class LeaseResult(_View):
    """What an order about a lease changed; a lease that would be made has no shape yet."""

    changed: bool
    lease: Lease | None


class LeaseList(_View):
    """Leases of people."""

    items: list[Lease]


class WorkerPage(_View):
    """Workers by name; `next` goes into `after`."""

    items: list[WorkerView]
    next: str | None


class WorkerLookup(_View):
    """Workers that were asked for by name."""

    items: list[WorkerView]
    unknown: list[str]


class Event(_View):
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


class Refusal(_View):
    """Attempts to attach, all alike, that were refused."""

    name: str
    client: str
    reason: str
    first_at: str
    last_at: str
    count: int


class RefusalList(_View):
    """Refused attempts, latest first."""

    items: list[Refusal]


class EventList(_View):
    """Transitions, newest first."""

    items: list[Event]


class Evidence(_View):
    """What a driver could say of an instance before it was destroyed; texts by name."""

    at: str
    instance: str
    why: str
    texts: dict[str, str]


class EvidenceList(_View):
    """Evidence of a worker's failed instances, newest first."""

    items: list[Evidence]


class Finding(_View):
    """An instance in which a provider's list and the ledger differ, and what came of it."""

    driver: str
    kind: Literal["orphan", "unknown", "absent", "unrecorded", "spare"]
    action: Literal["destroy", "give_up", "adopt", "wait", "hold"]
    instance: str
    epoch: int
    worker: str | None
    name: str
    created_at: str | None
    age_s: float | None
    reason: str
    done: bool
    error: str | None


class Checked(_View):
    """How many instances a driver listed, how many the hub expected, and stopped machines kept."""

    driver: str
    listed: int
    expected: int
    spares: int


class Unanswered(_View):
    """A driver that could not list its instances, and why."""

    driver: str
    reason: str


class Reconciliation(_View):
    """What one pass found and did."""

    at: str
    checked: list[Checked]
    unanswered: list[Unanswered]
    findings: list[Finding]


class Forgotten(_View):
    """Whether a worker's instance was forgotten."""

    name: str
    changed: bool


class ForgetResults(_View):
    """One result per worker."""

    results: list[Forgotten]


class DefineResult(_View):
    """What defining one worker changed."""

    name: str
    changed: bool
    created: bool
    before: Definition | None
    after: Definition


class DefineResults(_View):
    """One result per definition, in the request's order."""

    results: list[DefineResult]


class RemoveResult(_View):
    """What removing one worker changed."""

    name: str
    changed: bool
    state: Literal["absent", "removing"]


class RemoveResults(_View):
    """One result per name, in the request's order."""

    results: list[RemoveResult]


class ModeState(_View):
    """What is wanted of a worker, and why."""

    mode: WorkerMode
    reason: str | None
    until: str | None


class ModeResult(_View):
    """What setting one worker's mode changed."""

    name: str
    changed: bool
    before: ModeState
    after: ModeState


class ModeResults(_View):
    """One result per name, in the request's order."""

    results: list[ModeResult]


class StateResult(_View):
    """What asking for an instance, or its end, changed."""

    name: str
    changed: bool
    state: WorkerState


class StateResults(_View):
    """One result per name, in the request's order."""

    results: list[StateResult]


class StepView(_View):
    """One step of a build's latest attempt."""

    index: int
    name: str
    state: StepState
    rc: int | None
    failure_reason: str | None
    started_at: str | None
    finished_at: str | None
    log_size_bytes: int
    receipt: dict[str, Any] | None
    result: dict[str, Any] | None


class WhyNot(_View):
    """Why one worker does not run a queued build; a remedy for each reason."""

    worker: str
    reasons: list[str]
    remedies: list[str]


class BuildView(_View):
    """One build."""

    id: str
    name: str | None
    state: BuildState
    spec: dict[str, Any]
    worker: str | None
    attempts: int
    submitted_by: str
    submitted_at: str
    started_at: str | None
    finished_at: str | None
    result_text: str | None
    why: str | None
    why_workers: list[WhyNot] | None = None
    properties: dict[str, Any]
    steps: list[StepView]


class BuildPage(_View):
    """Builds, newest first; `next` goes into `after`."""

    items: list[BuildView]
    next: str | None


class Artifact(_View):
    """A file that a build's latest attempt gave to the hub."""

    path: str
    size_bytes: int
    sha256: str
    step: int
    modified_at: str | None
    stored_at: str


class ArtifactPage(_View):
    """Artifacts by path; `next` goes into `after`."""

    items: list[Artifact]
    next: str | None


class StoredFile(_View):
    """A file that builds can download to their workers by its hash."""

    sha256: str
    size_bytes: int


class IncidentView(_View):
    """Something that went wrong with a worker, from when to when, and whether people know."""

    id: str
    worker: str
    kind: str
    instance: str | None
    open: bool
    opened_at: str
    closed_at: str | None
    reason: str
    close_reason: str | None
    evidence: dict[str, Any]
    notification: Literal["none", "pending", "sent", "failed"]


class DeliveryView(_View):
    """One message to one recipient."""

    id: str
    incident: str | None
    about: Literal["opened", "evidence", "closed", "test"]
    channel: Literal["mail", "webhook"]
    recipient: str
    state: Literal["pending", "sent", "failed"]
    attempts: int
    held: bool
    created_at: str
    next_at: str | None
    give_up_at: str | None
    sent_at: str | None
    message_id: str | None
    last_error: str | None


class IncidentDetail(IncidentView):
    """One incident and who was told of it."""

    deliveries: list[DeliveryView]


class IncidentPage(_View):
    """Incidents, newest first; `next` goes into `after`."""

    items: list[IncidentView]
    next: str | None


class DeliveryPage(_View):
    """Deliveries, newest first; `next` goes into `after`."""

    items: list[DeliveryView]
    next: str | None


class DeliveryList(_View):
    """Deliveries that were just made."""

    items: list[DeliveryView]


class CreatedToken(_View):
    """A new token, shown this once."""

    name: str
    role: str
    token: str


class TokenView(_View):
    """A token without what proves it."""

    name: str
    role: str
    lookup: str
    created_by: str
    created_at: str
    expires_at: str | None


class TokenList(_View):
    """Every token by name."""

    items: list[TokenView]


class DecisionView(_View):
    """What was decided of a worker, a build or a group: by which rule, on which numbers."""

    id: int
    at: str
    kind: DecisionKind
    rule: str
    text: str
    worker: str | None
    build: str | None
    group: str | None
    numbers: dict[str, Any]


class DecisionPage(_View):
    """Decisions, newest first; `next` goes into `after`."""

    items: list[DecisionView]
    next: int | None
