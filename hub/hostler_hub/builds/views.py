"""Builds, their steps and files as the REST API, the page and the modules show them.

A model's fields are the only list of them: OpenAPI, the modules' RETURN documentation and the
tests read them from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from sqlalchemy import RowMapping

from hostler_hub.runtime.clock import instant
from hostler_hub.scheduling.reasons import BuildReasons
from hostler_hub.specs.states import BuildState, StepState
from hostler_hub.specs.view import View
from hostler_hub.store.rows import Row


class StepView(View):
    """One step of a build's latest attempt."""

    index: int = Field(description="Its place in the build, from 0.")
    name: str = Field(description="What it is called.")
    state: StepState = Field(description="How it is.")
    rc: int | None = Field(description="The exit code of its command.")
    failure_reason: str | None = Field(description="Why it was ended, in a fixed word.")
    started_at: str | None = Field(description="When it began.")
    finished_at: str | None = Field(description="When it ended.")
    log_size_bytes: int = Field(description="How much output the hub has of it.")
    receipt: dict[str, Any] | None = Field(
        description="The kill receipt of its job: what was left alive, and what it used."
    )
    result: dict[str, Any] | None = Field(description="What its kind brought, such as properties.")


class WhyNot(View):
    """Why one worker does not run a queued build."""

    worker: str = Field(description="The worker's name.")
    reasons: list[str] = Field(description="Every reason, in a sentence each.")
    remedies: list[str] = Field(description="What would remove each reason, in the same order.")


class BuildView(View):
    """One build."""

    id: str = Field(description="The build's id.")
    name: str | None = Field(description="What it is called.")
    state: BuildState = Field(
        description="`queued`, `running`, `success`, `failure`, `exception` or `cancelled`."
    )
    spec: dict[str, Any] = Field(description="The build as it was submitted.")
    worker: str | None = Field(description="The worker that runs or ran it.")
    attempts: int = Field(description="How often it was started.")
    submitted_by: str = Field(description="Who submitted it, by the token's name.")
    submitted_at: str = Field(description="When it was submitted.")
    started_at: str | None = Field(description="When its latest attempt began.")
    finished_at: str | None = Field(description="When it had its result.")
    result_text: str | None = Field(description="How it ended, in a sentence.")
    why: str | None = Field(
        description="Why it still waits, in a sentence. A list says it of those builds that are "
        "next, 20 at most and fewer in a large fleet; a single build's answer always does."
    )
    properties: dict[str, Any] = Field(
        description="Those it was submitted with, and over them those that its steps have set."
    )
    steps: list[StepView] = Field(
        description="The steps of its latest attempt with their results; a list of builds leaves "
        "them out."
    )
    why_workers: list[WhyNot] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="For each worker all reasons why it does not run the build, and a remedy for "
        "each; only in a single build's answer, and only while it waits.",
    )


class BuildPage(View):
    """Builds, newest first; `next` goes into `after`."""

    items: list[BuildView] = Field(description="The builds of this page.")
    next: str | None = Field(description="The `after` of the next page; null on the last one.")


class BuildCounts(View):
    """How many builds are under way."""

    queued: int = Field(description="How many wait for a worker.")
    running: int = Field(description="How many have a worker.")


class ArtifactView(View):
    """A file that a build's latest attempt gave to the hub."""

    path: str = Field(description="Its path among the build's artifacts.")
    size_bytes: int = Field(description="Its size.")
    sha256: str = Field(description="The SHA-256 of its content, in hexadecimal digits.")
    step: int = Field(description="The index of the step that gave it.")
    modified_at: str | None = Field(description="When it was modified on the worker.")
    stored_at: str = Field(description="When the hub had it.")


class ArtifactPage(View):
    """Artifacts by path; `next` goes into `after`."""

    items: list[ArtifactView] = Field(description="The artifacts of this page.")
    next: str | None = Field(description="The `after` of the next page; null on the last one.")


class StoredFileView(View):
    """A file that builds can download to their workers by its hash."""

    sha256: str = Field(description="The SHA-256 of its content, in hexadecimal digits.")
    size_bytes: int = Field(description="Its size.")


class StorageKindView(View):
    """What is stored of one kind."""

    used_bytes: int = Field(description="What all submitters together use.")
    limit_bytes: int | None = Field(
        description="What all submitters together may use; null is no limit but the disk's."
    )
    submitter_limit_bytes: int | None = Field(
        description="What each submitter may use; null is no limit but the disk's."
    )


class SubmitterStorageView(View):
    """What one submitter has on the hub's disk."""

    name: str = Field(description="The token's name; empty for files that an older hub has stored.")
    files_bytes: int = Field(description="Files stored for builds to download.")
    artifacts_bytes: int = Field(description="Artifacts of their builds.")
    logs_bytes: int = Field(description="Logs of their builds.")


class StorageView(View):
    """What submitters use of the hub's disk, and what they may use."""

    files: StorageKindView = Field(description="Files stored for builds to download.")
    artifacts: StorageKindView = Field(description="Artifacts of builds.")
    logs: StorageKindView = Field(description="Logs of builds.")
    submitters: list[SubmitterStorageView] = Field(
        description="The submitters who use most, 100 of them, the greatest first."
    )
    disk_free_bytes: int = Field(description="What is free on the disk of the state directory.")
    disk_reserve_bytes: int = Field(
        description="What stays free for the database: uploads that would use it are refused."
    )


def build_view(
    row: Row,
    steps: Sequence[RowMapping],
    *,
    why: str | None = None,
    reasons: BuildReasons | None = None,
) -> BuildView:
    """The view of one build. While the build waits: ``why`` in a sentence, or ``reasons``, which
    also has the reasons for each worker.
    """
    return BuildView(
        id=row["id"],
        name=row["name"],
        state=row["state"],
        spec=row["spec"],
        worker=row["worker"],
        attempts=row["attempts"],
        submitted_by=row["submitted_by"],
        submitted_at=instant(row["submitted_at"]),
        started_at=instant(row["started_at"]),
        finished_at=instant(row["finished_at"]),
        result_text=row["result_text"],
        why=why if reasons is None else reasons.text,
        properties=_properties(row, steps),
        steps=[_step_view(step) for step in steps],
        why_workers=None if reasons is None else _why_workers(reasons),
    )


def artifact_view(row: RowMapping) -> ArtifactView:
    """The view of one row of ``store.tables.artifacts``."""
    return ArtifactView(
        path=row["path"],
        size_bytes=row["size_bytes"],
        sha256=row["sha256"],
        step=row["step"],
        modified_at=instant(row["modified_at"]),
        stored_at=instant(row["stored_at"]),
    )


def _why_workers(reasons: BuildReasons) -> list[WhyNot]:
    return [
        WhyNot(
            worker=worker,
            reasons=[each.text for each in of_worker],
            remedies=[each.remedy for each in of_worker],
        )
        for worker, of_worker in reasons.workers.items()
    ]


def _step_view(step: RowMapping) -> StepView:
    return StepView(
        index=step["index"],
        name=step["name"],
        state=step["state"],
        rc=step["rc"],
        failure_reason=step["failure_reason"],
        started_at=instant(step["started_at"]),
        finished_at=instant(step["finished_at"]),
        log_size_bytes=step["log_size_bytes"],
        receipt=step["receipt"],
        result=step["result"],
    )


def _properties(row: Row, steps: Sequence[RowMapping]) -> dict[str, Any]:
    """The properties that the build was submitted with, overridden by those that its
    steps have set.
    """
    properties = dict(row["spec"]["properties"])
    for step in steps:
        if step["result"] is not None:
            properties |= step["result"].get("properties", {})
    return properties
