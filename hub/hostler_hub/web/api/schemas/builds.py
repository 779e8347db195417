"""Builds, their steps, and the files they leave."""

from typing import Any, Literal

from hostler_hub.web.api.schemas.base import Shape

BuildState = Literal["queued", "running", "success", "failure", "exception", "cancelled"]
StepState = Literal["pending", "running", "success", "failure", "exception", "cancelled", "skipped"]


class StepView(Shape):
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


class WhyNot(Shape):
    """Why one worker does not run a queued build; a remedy for each reason."""

    worker: str
    reasons: list[str]
    remedies: list[str]


class BuildView(Shape):
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


class BuildPage(Shape):
    """Builds, newest first; `next` goes into `after`."""

    items: list[BuildView]
    next: str | None


class Artifact(Shape):
    """A file that a build's latest attempt gave to the hub."""

    path: str
    size_bytes: int
    sha256: str
    step: int
    modified_at: str | None
    stored_at: str


class ArtifactPage(Shape):
    """Artifacts by path; `next` goes into `after`."""

    items: list[Artifact]
    next: str | None


class StoredFile(Shape):
    """A file that builds can download to their workers by its hash."""

    sha256: str
    size_bytes: int
