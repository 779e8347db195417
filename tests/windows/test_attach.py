"""Taking in processes that others have started: one that has just ended is no failure."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from peers.wine import Windows

pytestmark = pytest.mark.peer("wine")

TORTURE = int(os.environ.get("HOSTLER_TORTURE", "60"))


@pytest.mark.timeout(1200)
def test_a_process_that_exits_at_that_moment(windows: Windows) -> None:
    """Buildbot's worker fails the step then: "Access is denied"."""
    seen = windows.call("attach.exiting", TORTURE, within_s=60 + 2 * TORTURE)
    assert seen["failed"] == []
    assert seen["attached"] + seen["ended"] == TORTURE


def test_denied_means_that_it_has_just_ended(windows: Windows) -> None:
    assert windows.call("attach.ended_in_between") is False


def test_denied_for_one_that_lives_refuses_the_job(windows: Windows) -> None:
    assert windows.call("attach.not_allowed") == {"winerror": 5}


def test_any_other_error_refuses_the_job(windows: Windows) -> None:
    assert windows.call("attach.into_a_closed_job") == {"winerror": 6}
