"""Workers as the REST API, the page and the modules show them: one model per noun, and its maker.

A model's fields are the only list of them: OpenAPI, the modules' RETURN documentation and the
tests read them from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field
from sqlalchemy import RowMapping

from hostler_hub.lifecycle.model import Gate, Mode, State, Worker, why_retiring
from hostler_hub.runtime.clock import instant
from hostler_hub.specs.expectations import Difference, Tool
from hostler_hub.specs.isolation import Isolation, isolation_of
from hostler_hub.specs.view import View
from hostler_hub.specs.worker import PublicDefinition, WorkerDefinition
from hostler_hub.store.rows import Row
from hostler_hub.workers.lease_views import LeaseBrief, lease_brief
from hostler_hub.workers.registry import Entry


class DefinitionView(PublicDefinition):
    """A worker's definition as stored; its password never leaves the hub."""

    model_config = View.model_config

    password_ref: dict[str, str] | None = Field(
        description="Where the hub finds the worker's password."
    )
    has_password: bool = Field(description="Whether the hub knows a password of the worker.")


class Quarantine(View):
    """Why and until when a worker gets no new work."""

    until: str = Field(description="When it ends.")
    reason: str | None = Field(description="Why, in a sentence.")
    delay_s: float = Field(description="How long this quarantine lasts; the next is longer.")


class Missing(View):
    """Since when an agent that should be attached is not."""

    since: str = Field(description="When the hub noticed.")
    reason: str | None = Field(description="Why, in a sentence.")


class AdmissionView(View):
    """How a worker's machine compares with what its definition expects."""

    state: Literal["unknown", "asking", "met", "unmet"] = Field(
        description="`unknown` until an agent attaches, `asking` while it is asked."
    )
    at: str | None = Field(description="When the machine was compared last.")
    differences: list[Difference] = Field(description="What is not as expected.")
    clock_skew_s: float | None = Field(description="How far its clock is ahead of the hub's.")
    tools: dict[str, Tool] = Field(description="What was found of each expected tool.")


class WorkerReasons(View):
    """Why a worker is not started, not used or not stopped now; a field is null if it is."""

    not_started: str | None = Field(description="Why no instance of it is started.")
    not_used: str | None = Field(description="Why no build runs on it.")
    not_stopped: str | None = Field(description="Why its instance is not stopped.")


class WorkerView(View):
    """One worker: what is wanted of it and how it is."""

    name: str = Field(description="The worker's name.")
    driver: str = Field(description="What starts its instances.")
    description: str | None = Field(description="What it is for, in its owner's words.")
    mode: Mode = Field(
        description="What an operator wants of it: `active`, `paused`, `draining` or `stopped`."
    )
    mode_reason: str | None = Field(description="Why, in the operator's words.")
    mode_by: str | None = Field(description="Who said so, by the token's name.")
    mode_at: str | None = Field(description="When they said so.")
    mode_until: str | None = Field(description="When it is active again by itself.")
    state: State = Field(
        description="How its instance is: `latent`, `substantiating`, `substantiated` or "
        "`insubstantiating`."
    )
    state_since: str = Field(description="When its instance came into this state.")
    attached: bool = Field(description="Whether its agent is connected.")
    instance: str | None = Field(description="The id of its instance, where it has one.")
    epoch: int = Field(description="How many instances it has had; the fencing number of this one.")
    up_since: str | None = Field(description="When its instance attached first.")
    uses: int = Field(description="How many builds its instance has had.")
    retiring: str | None = Field(
        description="Why its instance gets no new builds and is replaced when it is idle."
    )
    failed_starts: int = Field(description="How many starts in a row have failed.")
    isolation: Isolation | None = Field(
        description="What separates its builds from its agent and from each other, as its agent "
        "reports it: `user`, `container` or `none`; null until an agent has attached."
    )
    exposes_hub: bool = Field(
        description="Whether its builds run as the hub's own user on the hub's machine, so that "
        "who submits them can act as the hub's owner."
    )
    admission: AdmissionView | None = Field(
        description="How its machine compares with what its definition expects of it. `state` is "
        "`unknown` until its agent attaches, `asking`, `met` or `unmet`; `differences` is a list "
        "of `what`, `expected` and `found`; `tools` is what was found of each tool. None where "
        "nothing is expected."
    )
    quarantine: Quarantine | None = Field(description="Until when and why it gets no builds.")
    missing: Missing | None = Field(description="Since when and why it is missing.")
    lease: LeaseBrief | None = Field(
        description="Which person has it (`holder`, `reason`, `until`) or waits for it (`state` "
        "is `waiting`)."
    )
    incidents: dict[str, str] = Field(description="Ids of its open incidents, by kind.")
    last_error: str | None = Field(description="What went wrong last.")
    builds: list[str] = Field(description="Ids of the builds that it runs.")
    properties: dict[str, Any] = Field(description="Facts that builds can require.")
    labels: list[str] = Field(description="Words that builds can require.")
    max_builds: int = Field(description="How many builds it runs at once.")
    definition: DefinitionView = Field(description="What its owner defined, without the password.")
    facts: dict[str, Any] = Field(description="What its agent reports of the machine.")
    removing: bool = Field(description="Whether it disappears once its instance is proven gone.")
    revision: int = Field(description="How often its row has changed.")
    why: WorkerReasons = Field(
        description="Why it is `not_started`, `not_used` and `not_stopped` now; none for what it "
        "is."
    )


class WorkerPage(View):
    """Workers by name; `next` goes into `after`."""

    items: list[WorkerView] = Field(description="The workers of this page.")
    next: str | None = Field(description="The `after` of the next page; null on the last one.")


class WorkerLookup(View):
    """Workers that were asked for by name."""

    items: list[WorkerView] = Field(description="The workers that exist.")
    unknown: list[str] = Field(description="The names that no worker has.")


class EventView(View):
    """One transition of a worker."""

    at: str = Field(description="When it happened.")
    event: str = Field(description="What happened.")
    from_: str = Field(alias="from", description="The instance's state before.")
    to: str = Field(description="The instance's state afterwards.")
    cause: str | None = Field(description="Why, in a sentence.")
    instance: str | None = Field(description="The id of the instance it is about.")
    epoch: int = Field(description="The worker's epoch afterwards.")


class EventList(View):
    """Transitions, newest first."""

    items: list[EventView] = Field(description="The transitions.")


class EvidenceView(View):
    """What a driver could say of an instance before it was destroyed."""

    at: str = Field(description="When the driver was asked.")
    instance: str = Field(description="The id of the instance.")
    why: str = Field(description="Why the instance was destroyed.")
    texts: dict[str, str] = Field(description="What the driver said, by name.")


class EvidenceList(View):
    """Evidence of a worker's failed instances, newest first."""

    items: list[EvidenceView] = Field(description="The evidence.")


class RefusalView(View):
    """Attempts to attach, all alike, that were refused."""

    name: str = Field(description="The name that was given.")
    client: str = Field(description="The address that it came from.")
    reason: str = Field(description="Why it was refused.")
    first_at: str = Field(description="When it was tried first.")
    last_at: str = Field(description="When it was tried last.")
    count: int = Field(description="How often it was tried.")


class RefusalList(View):
    """Refused attempts, latest first."""

    items: list[RefusalView] = Field(description="The attempts.")


class WorkerCounts(View):
    """How many workers are in each state and mode, and how many people should look at."""

    total: int = Field(description="How many workers are defined.")
    by_state: dict[State, int] = Field(description="By the state of their instance.")
    by_mode: dict[Mode, int] = Field(description="By what an operator wants of them.")
    attached: int = Field(description="How many have an agent that is connected.")
    missing: int = Field(description="How many should be attached and are not.")
    quarantined: int = Field(description="How many get no work after a failure.")
    exposing_hub: int = Field(
        description="How many run builds as the hub's own user on the hub's machine."
    )


def worker_view(
    entry: Entry, builds: Sequence[str], why: WorkerReasons, *, exposes_hub: bool = False
) -> WorkerView:
    """The view of one worker; ``builds`` are the ids of the builds that it runs."""
    life, definition = entry.life, entry.definition
    return WorkerView(
        name=life.name,
        driver=definition.driver,
        description=definition.description,
        mode=life.mode,
        mode_reason=life.mode_reason,
        mode_by=life.mode_by,
        mode_at=instant(life.mode_at),
        mode_until=instant(life.mode_until),
        state=life.state,
        state_since=instant(life.state_since),
        attached=life.attached,
        instance=life.instance.id if life.instance else None,
        epoch=life.epoch,
        up_since=instant(life.up_since),
        uses=life.uses,
        retiring=why_retiring(life),
        failed_starts=life.failed_starts,
        isolation=isolation_of(entry.facts),
        exposes_hub=exposes_hub,
        admission=admission_view(entry),
        quarantine=_quarantine(life),
        missing=_missing(life),
        lease=None if life.person is None else lease_brief(life.person),
        incidents=entry.incidents,
        last_error=life.last_error,
        builds=list(builds),
        properties=entry.properties,
        labels=list(definition.labels),
        max_builds=definition.max_builds,
        definition=definition_view(definition, has_password=entry.has_password),
        facts=dict(entry.facts),
        removing=life.removing,
        revision=entry.revision,
        why=why,
    )


def definition_view(definition: WorkerDefinition, *, has_password: bool) -> DefinitionView:
    """The public view of a definition, without its password.

    It is not validated again: it was when it came in.
    """
    fields = {name: getattr(definition, name) for name in PublicDefinition.model_fields}
    ref = definition.password_ref
    return DefinitionView.model_construct(
        **fields,
        password_ref=ref and ref.model_dump(exclude_none=True),
        has_password=has_password,
    )


def admission_view(entry: Entry) -> AdmissionView | None:
    """How a worker's machine compares with what is expected of it; None if nothing is."""
    expects, exam, gate = entry.definition.expects, entry.exam, entry.life.gate
    if expects is None or not expects.any:
        return None
    if exam is not None and exam.expects != expects:
        exam = None  # it was made with other expectations than today's
    findings = exam.findings if exam is not None else None
    state: Literal["unknown", "met", "unmet"] = "unknown"
    if exam is not None:
        state = "met" if exam.met else "unmet"
    return AdmissionView(
        state="asking" if gate is Gate.ASKING else state,
        at=None if exam is None else instant(exam.at),
        differences=[] if exam is None else list(exam.differences),
        clock_skew_s=None if findings is None else findings.clock_skew_s,
        tools=dict((findings and findings.tools) or {}),
    )


def event_view(row: RowMapping) -> EventView:
    """The view of one row of the event log."""
    return EventView.model_validate(
        {
            "at": instant(row["at"]),
            "event": row["event"],
            "from": row["from_state"],
            "to": row["to_state"],
            "cause": row["cause"],
            "instance": row["instance"],
            "epoch": row["epoch"],
        }
    )


def evidence_view(row: Row) -> EvidenceView:
    """The view of one stored row of evidence."""
    return EvidenceView(
        at=instant(row["at"]), instance=row["instance"], why=row["why"], texts=row["texts"]
    )


def _quarantine(life: Worker) -> Quarantine | None:
    if life.quarantine_until is None:
        return None
    until = instant(life.quarantine_until)
    return Quarantine(until=until, reason=life.quarantine_reason, delay_s=life.backoff_s)


def _missing(life: Worker) -> Missing | None:
    if life.missing_since is None:
        return None
    return Missing(since=instant(life.missing_since), reason=life.missing_reason)
