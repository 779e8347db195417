"""Whoever looks for a page finds it: each how-to is in the README, and no link leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.glob("*.md"), *DOCS.glob("checklists/*.md")])

_LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def links(page: Path) -> set[Path]:
    """The files that a page links to."""
    return {(page.parent / target).resolve() for target in _LINK.findall(page.read_text())}


@pytest.mark.parametrize("index", ["README.md", "docs/README.md"])
def test_an_index_lists_every_how_to(index: str) -> None:
    assert set(DOCS.glob("howto-*.md")) - links(ROOT / index) == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert [str(target) for target in links(page) if not target.exists()] == []


_PATH = re.compile(r"`([\w.-]+(?:/[\w.-]+)*(?:\.py|/))`")
ROOMS = [ROOT, ROOT / "hub/hostler_hub", ROOT / "agent/hostler_agent"]


@pytest.mark.parametrize(
    "page",
    [DOCS / "architecture.md", DOCS / "contributing.md", *DOCS.glob("checklists/*.md")],
    ids=lambda page: page.stem,
)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    """By its path from the root, or from the hub's or the agent's package."""
    named = {path for path in _PATH.findall(page.read_text()) if "name" not in path.lower()}
    assert sorted(path for path in named if not any((room / path).exists() for room in ROOMS)) == []
