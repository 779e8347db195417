"""What reconciling found and did, as the REST API shows it."""

from __future__ import annotations

from pydantic import Field

from hostler_hub.runtime.clock import instant
from hostler_hub.specs.view import View
from hostler_hub.workers.reconcile.diff import Action, DriftKind
from hostler_hub.workers.reconcile.report import FindingOutcome, Report


class FindingView(View):
    """An instance in which a provider's list and the ledger differ, and what came of it."""

    driver: str = Field(description="Whose instance it is.")
    kind: DriftKind = Field(
        description="`orphan` should have ended. `unknown` was never heard of. `absent` should be "
        "there and is not listed. `unrecorded` was created, but the answer was lost. `spare` is a "
        "stopped machine that its worker keeps no longer. `copy` is somebody else's and only "
        "carries an instance's mark."
    )
    action: Action = Field(
        description="What is done about it, `destroy`, `give_up`, `adopt`, `wait` for a second "
        "look, `hold`, or only `report`: it is not touched."
    )
    instance: str = Field(description="The id of the instance.")
    epoch: int = Field(description="The instance's epoch.")
    worker: str | None = Field(description="Whose instance it is or was, if that is known.")
    name: str = Field(description="What the provider calls it.")
    created_at: str | None = Field(description="When it was created, if the provider tells.")
    age_s: float | None = Field(description="Seconds since it was created, if the provider tells.")
    reason: str = Field(description="Why this is done about it.")
    done: bool = Field(description="Whether it was done.")
    error: str | None = Field(description="Why it could not be done.")


class CheckedView(View):
    """How many instances a driver listed, and how many of them the hub expected."""

    driver: str = Field(description="The driver.")
    listed: int = Field(description="How many instances its provider listed.")
    expected: int = Field(description="How many the hub expected.")
    spares: int = Field(
        description="How many stopped machines are there for their workers' next instances."
    )


class UnansweredView(View):
    """A place whose instances could not be listed, and why."""

    driver: str = Field(description="The driver.")
    place: str | None = Field(
        description="The host, daemon or region; none if no place of the driver answered."
    )
    reason: str = Field(description="Why it did not answer.")


class Reconciliation(View):
    """What one pass found and did."""

    at: str = Field(description="When the pass began.")
    hold: str | None = Field(
        description="Why the hub starts and destroys nothing until that is confirmed, as after a "
        "restore; null if it is in no hold."
    )
    checked: list[CheckedView] = Field(description="The drivers of which a place answered.")
    unanswered: list[UnansweredView] = Field(description="The places that did not.")
    findings: list[FindingView] = Field(
        description="The instances in which a provider and the hub differ."
    )


class Forgotten(View):
    """Whether a worker's instance was forgotten."""

    name: str = Field(description="The worker's name.")
    changed: bool = Field(description="Whether it had an instance.")


class ForgetResults(View):
    """One result per worker."""

    results: list[Forgotten] = Field(description="In the request's order.")


def reconcile_view(report: Report) -> Reconciliation:
    """The view of one pass's report."""
    return Reconciliation(
        at=instant(report.at),
        hold=report.hold,
        checked=[
            CheckedView(
                driver=driver,
                listed=checked.listed,
                expected=checked.expected,
                spares=checked.spares,
            )
            for driver, checked in report.checked.items()
        ],
        unanswered=[
            UnansweredView(driver=each.driver, place=each.place or None, reason=each.reason)
            for each in report.unanswered
        ],
        findings=[_finding_view(outcome, report.at) for outcome in report.outcomes],
    )


def _finding_view(outcome: FindingOutcome, at: float) -> FindingView:
    finding = outcome.finding
    created_at = finding.owned.created_at if finding.owned is not None else None
    return FindingView(
        driver=outcome.driver,
        kind=finding.kind,
        action=finding.action,
        instance=finding.instance,
        epoch=finding.epoch,
        worker=finding.worker or None,
        name=finding.name,
        created_at=instant(created_at),
        age_s=None if created_at is None else max(0.0, round(at - created_at, 3)),
        reason=finding.reason,
        done=outcome.done,
        error=outcome.error,
    )
