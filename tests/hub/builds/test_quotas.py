"""How much each submitter may store: exact under concurrency, and nobody's limit is another's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from hostler_hub.builds.errors import QuotaReached
from hostler_hub.builds.quotas import SHOWN_SUBMITTERS, Kind, Limits, Quotas
from hostler_hub.errors import SettingsError
from hostler_hub.runtime.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

FILES, LOGS = Kind.FILES, Kind.LOGS


def quotas(per_submitter: int | None = None, in_all: int | None = None) -> Quotas:
    return Quotas({kind: Limits(per_submitter, in_all) for kind in Kind})


def test_the_last_byte_fits_and_the_next_does_not() -> None:
    space = quotas(per_submitter=10).account("ann").reservation(FILES)
    space.take(7)
    space.take(3)
    with pytest.raises(QuotaReached) as refused:
        space.take(1)
    assert str(refused.value) == "the files of ann may have 10 bytes, and have 10 bytes already"
    assert not refused.value.is_too_large
    with pytest.raises(QuotaReached) as refused:
        space.check(11)
    assert refused.value.is_too_large


def test_V19_a_full_quota_stops_nobody_else_and_no_other_kind() -> None:
    of_all = quotas(per_submitter=10)
    of_all.take(FILES, "ann", 10)
    of_all.take(LOGS, "ann", 10)
    of_all.take(FILES, "bob", 10)
    with pytest.raises(QuotaReached, match="the files of ann"):
        of_all.take(FILES, "ann", 1)


def test_all_together_have_a_limit_and_names_are_not_told() -> None:
    of_all = quotas(in_all=10)
    of_all.take(FILES, "ann", 6)
    with pytest.raises(QuotaReached, match=r"^the files of all submitters may have 10 bytes"):
        of_all.take(FILES, "bob", 5)
    of_all.take(FILES, "bob", 4)


def test_what_is_not_kept_is_given_back_once() -> None:
    account = quotas(per_submitter=10).account("ann")
    lost, kept = account.reservation(FILES), account.reservation(FILES)
    lost.take(4)
    kept.take(6)
    kept.keep()
    for space in (lost, lost, kept):
        space.give_back()
    assert account.quotas.view().files.used_bytes == 6
    account.give_back(FILES, 6)
    assert account.quotas.view().files.used_bytes == 0
    assert account.quotas.view().submitters == []


def test_many_at_once_do_not_exceed_a_limit_together() -> None:
    of_all = quotas(per_submitter=1000, in_all=1500)

    def fill(submitter: str) -> int:
        taken = 0
        try:
            while True:
                of_all.take(FILES, submitter, 7)
                taken += 7
        except QuotaReached:
            return taken

    with ThreadPoolExecutor(8) as threads:
        taken = sum(threads.map(fill, ["ann", "bob"] * 4))
    assert taken == of_all.view().files.used_bytes == 1500 // 7 * 7


def test_the_reserve_of_the_disk_is_for_the_database() -> None:
    free = 100
    of_all = Quotas(free_bytes=lambda: free, reserve_bytes=40)
    of_all.take(FILES, "ann", 60)
    free = 40
    with pytest.raises(QuotaReached, match="nearly full: 40 bytes are kept free"):
        of_all.take(FILES, "bob", 1)
    of_all.take(FILES, "bob", 0)  # an empty file needs no space
    free = 0
    assert of_all.take_for_log("bob", 20) == (20, "")  # agents keep what the database cannot take


def test_as_much_of_a_log_as_fits() -> None:
    of_all = quotas(per_submitter=10)
    assert of_all.take_for_log("ann", 4) == (4, "")
    room, why = of_all.take_for_log("ann", 10)
    assert room == 6
    assert why == "the logs of ann may have 10 bytes, and have 4 bytes already"
    assert of_all.take_for_log("ann", 1)[0] == 0
    assert of_all.take_for_log("bob", 10) == (10, "")


def test_what_is_stored_counts_also_over_the_limit() -> None:
    """A limit may be lowered; nothing is removed, nothing is added."""
    of_all = quotas(per_submitter=10)
    of_all.count(FILES, [("ann", 30), ("bob", 1), ("ann", 5)])
    assert of_all.view().files.used_bytes == 36
    assert of_all.take_for_log("ann", 1)[0] == 1
    with pytest.raises(QuotaReached):
        of_all.take(FILES, "ann", 1)


def test_the_greatest_are_shown_first() -> None:
    of_all = quotas()
    of_all.count(FILES, [(f"s{n:03}", n) for n in range(SHOWN_SUBMITTERS + 50)])
    of_all.count(LOGS, [("s001", 10_000)])
    shown = of_all.view().submitters
    assert len(shown) == SHOWN_SUBMITTERS
    assert [each.name for each in shown[:2]] == ["s001", "s149"]
    assert (shown[0].files_bytes, shown[0].artifacts_bytes, shown[0].logs_bytes) == (1, 0, 10_000)


def test_the_settings_name_sizes_or_shares_of_the_disk(tmp_path: Path) -> None:
    settings = Settings(
        tmp_path,
        quota_files_per_submitter="2 KiB",
        quota_logs_in_all="none",
        quota_artifacts_in_all="50%",
        disk_reserve="none",
    )
    view = Quotas.from_settings(settings).view()
    assert view.files.submitter_limit_bytes == 2048
    assert view.logs.limit_bytes is None
    assert view.artifacts.limit_bytes is not None
    assert view.disk_reserve_bytes == 0
    with pytest.raises(SettingsError, match=r"^quota_logs_in_all: must be a size"):
        Settings(tmp_path, quota_logs_in_all="lots")
