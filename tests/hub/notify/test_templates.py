"""The words of mails, and an operator's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub.notify.conftest import message

from hostler_hub.notify.templates import Templates

HUB = {"id": "HUB", "url": "https://hub.example.org"}


def test_an_operator_s_template_replaces_ours_and_the_others_stay(tmp_path: Path) -> None:
    (tmp_path / "subject.txt").write_text("ALARM {{ notices[0].incident.worker }}")
    words = Templates(str(tmp_path), HUB).render(message())
    assert words.subject == "ALARM docker-07"
    assert "did not attach" in words.text


@pytest.mark.parametrize(
    "wrong", ["{{ notices[0].incident.nothing }}", "{% if %}", "{{ 1 + 'a' }}"]
)
def test_a_template_that_fails_gives_way_to_ours(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "mail.txt").write_text(wrong)
    words = Templates(str(tmp_path), HUB).render(message())
    assert "did not attach" in words.text


@pytest.mark.parametrize("about", ["opened", "closed", "test", "digest"])
@pytest.mark.parametrize("is_open", [True, False])
def test_every_kind_of_message_has_words(about: str, is_open: bool) -> None:
    until = None if is_open else "2026-01-02T04:00:00.000Z"
    words = Templates("", HUB).render(
        message(about, open=is_open, closed_at=until, close_reason="found")
    )
    assert words.subject.startswith("[hostler] ")
    assert "\n" not in words.subject
    assert HUB["url"] in words.text
    assert HUB["url"] in words.html


def test_long_evidence_is_cut_at_its_beginning() -> None:
    told = message(evidence={"console": "first\n" + "x" * 20_000 + "\nlast"})
    words = Templates("", HUB).render(told)
    assert "last" in words.text
    assert "first" not in words.text
