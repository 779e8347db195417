"""What an earlier agent left in its working directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostler_agent.commands.leftovers import remove_workspaces

if TYPE_CHECKING:
    from pathlib import Path

WORKSPACE = "01ARZ3NDEKTSV4RRFFQ69G5FAV.2"


def test_V10_only_directories_of_builds_are_removed(tmp_path: Path) -> None:
    kept = [tmp_path / "builds" / "linux", tmp_path / "builds" / f"{WORKSPACE}.old", tmp_path / "x"]
    for path in [*kept, tmp_path / "builds" / WORKSPACE / "deep"]:
        path.mkdir(parents=True)
        (path / "file").write_text("")
    remove_workspaces(tmp_path)
    assert not (tmp_path / "builds" / WORKSPACE).exists()
    assert all((path / "file").exists() for path in kept)


def test_a_new_agent_has_nothing_to_remove(tmp_path: Path) -> None:
    remove_workspaces(tmp_path)
    assert list(tmp_path.iterdir()) == []
