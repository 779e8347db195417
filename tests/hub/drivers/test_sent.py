"""What was sent to a provider, and what certainly was not, over a restart of the hub."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from hostler_hub.drivers.errors import ProviderFailed
from hostler_hub.drivers.sent import SentRequests
from hostler_hub.runtime.ids import new_ulid

REQUEST = {"ClientToken": "x", "UserData": "secret"}


@pytest.fixture
def sent(tmp_path: Path) -> SentRequests:
    return SentRequests("ec2", tmp_path / "ec2" / "sent")


def reborn(tmp_path: Path) -> SentRequests:
    return SentRequests("ec2", tmp_path / "ec2" / "sent")


def test_K2_a_killed_hub_s_successor_knows_that_nothing_was_sent(
    sent: SentRequests, tmp_path: Path
) -> None:
    first, later = new_ulid(), new_ulid()
    assert not sent.never(first), "an earlier version may have sent it"
    sent.begin(first)
    assert sent.never(first)
    assert reborn(tmp_path).never(first)
    assert reborn(tmp_path).never(later), "the hub died before it came to the driver"


def test_K3_what_may_have_been_sent_is_never_taken_for_unsent(
    sent: SentRequests, tmp_path: Path
) -> None:
    instance = new_ulid()
    sent.begin(instance)
    sent.note(instance, REQUEST)
    for each in (sent, reborn(tmp_path)):
        assert not each.never(instance)
        assert each.request(instance) == REQUEST
        each.begin(instance)  # the same order once more
        assert not each.never(instance)
    file = tmp_path / "ec2" / "sent" / instance
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    sent.answered(instance)
    assert file.read_bytes() == b"", "V14: no secret stays"
    assert (sent.request(instance), reborn(tmp_path).never(instance)) == (None, False)


def test_what_was_refused_or_is_gone_leaves_nothing(sent: SentRequests, tmp_path: Path) -> None:
    refused, gone = new_ulid(), new_ulid()
    for instance in (refused, gone):
        sent.begin(instance)
        sent.note(instance)
    sent.withdraw(refused)
    sent.forget(gone)
    assert sent.never(refused)
    assert reborn(tmp_path).never(refused)
    assert [each.name for each in (tmp_path / "ec2" / "sent").iterdir()] == ["since"]


def test_an_instance_of_before_is_not_known(sent: SentRequests, tmp_path: Path) -> None:
    before = new_ulid(1)
    sent.begin(new_ulid())
    assert not sent.never(before)
    (tmp_path / "ec2" / "sent" / "since").write_text("no number")
    assert not reborn(tmp_path).never(new_ulid())


def test_D2_what_cannot_be_noted_is_not_sent(sent: SentRequests, tmp_path: Path) -> None:
    (tmp_path / "ec2").write_text("a file in the way")
    with pytest.raises(ProviderFailed, match=r"ec2: cannot write to .*sent.*nothing was started"):
        sent.begin(new_ulid())


def test_without_a_directory_the_knowledge_is_the_process_s() -> None:
    sent, instance = SentRequests("local", None), new_ulid()
    sent.begin(instance)
    assert sent.never(instance)
    sent.note(instance)
    assert not sent.never(instance)
    assert not SentRequests("local", None).never(instance)
