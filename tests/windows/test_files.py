"""Files and facts on Windows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from peers.wine import windows_path

if TYPE_CHECKING:
    from pathlib import Path

    from peers.wine import Windows

pytestmark = pytest.mark.peer("wine")


def test_a_tree_is_removed_but_not_what_it_links_to(windows: Windows) -> None:
    """E18: long paths and read-only files too."""
    told = windows.call("files.removed")
    assert told == {"failures": [], "tree": False, "outside": True, "link": True, "absent": []}


def test_a_file_in_use_is_reported(windows: Windows) -> None:
    """E18: tried again for a while; everything else is removed."""
    told = windows.call("files.in_use")
    assert told["failures"][0] == 32  # ERROR_SHARING_VIOLATION
    assert (told["left"], told["then"], told["gone"]) == (["held"], [], True)


def test_a_log_that_is_read_can_be_rotated(windows: Windows) -> None:
    assert windows.call("files.opened_log_lets_go") == {"read": "a\r\n", "left": []}


def test_files_are_binary(windows: Windows) -> None:
    assert windows.call("files.binary_flags") is True


def test_who_may_read_a_secret(windows: Windows, tmp_path: Path) -> None:
    """Wine makes access lists of the modes."""
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    assert windows.call("files.private", windows_path(secret)) is True
    secret.chmod(0o644)
    assert windows.call("files.private", windows_path(secret)) is False


def test_facts(windows: Windows) -> None:
    facts = windows.call("files.facts")
    assert facts["boot_ids"][0] == facts["boot_ids"][1] == windows.call("files.boot_id")
    assert facts["memory_mb"] > 100
    assert facts["os"]["id"] == "windows"
    assert facts["os"]["version_id"].startswith("10.0.")
    assert facts["shell"][0].lower().endswith("cmd.exe")


def test_output_in_the_consoles_code_page(windows: Windows) -> None:
    text = "größer\r\n"
    assert windows.call("files.decoded", 437, text.encode("cp437").hex()) == text
    assert windows.call("files.decoded", 437, text.encode().hex()) == text


WORDS = ["a b", '"q"', "c:\\d e\\", "", "x&y|z", "^", "é", "a,b;c=d", '" & echo owned & "']


@pytest.mark.parametrize("script", [None, "run.bat", "run it.cmd"])
def test_arguments_arrive_as_they_are(windows: Windows, script: str | None) -> None:
    """BatBadBut. `%` is left out for batch files: Wine's cmd.exe expands it where Windows' does
    not, see test_quoting."""
    words = [*WORDS, "%PATH%"] if script is None else WORDS
    told = windows.call("files.arguments", words, script)
    assert json.loads(told["stdout"]) == words


def test_batch_files_must_be_asked_for(windows: Windows) -> None:
    """Also by the names that only Windows takes for batch files."""
    refusals = windows.call("files.batch_without_asking")
    assert [refusal["error"] for refusal in refusals] == ["PlanRefused"] * 5


def test_programs_beside_us_are_not_ours_to_run(windows: Windows) -> None:
    """CreateProcess would look in the working directory first."""
    assert windows.call("files.not_here")["error"] == "StartFailed"


def test_an_upload_follows_no_link_out_of_the_workspace(windows: Windows, tmp_path: Path) -> None:
    """The links are the machine's own: Wine makes links that it does not follow."""
    (tmp_path / "ws" / "out").mkdir(parents=True)
    (tmp_path / "ws" / "out" / "a").write_text("a")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "shadow").write_text("secret")
    (tmp_path / "ws" / "file").symlink_to("out/a")
    (tmp_path / "ws" / "d").symlink_to("out")
    (tmp_path / "ws" / "leak").symlink_to("../etc/shadow")
    (tmp_path / "ws" / "leaks").symlink_to("../etc")
    out = "a link leads out"
    expected = {"out/a": "a", "file": "a", "d/a": "a", "d": None}
    expected |= {"leak": out, "leaks": out, "leaks/shadow": out, "../etc/shadow": out}
    told = windows.call("files.opened", windows_path(tmp_path / "ws"), list(expected))
    assert told == {**expected, "names": ["a"]}


def test_a_name_that_means_more_is_not_written(windows: Windows) -> None:
    assert windows.call("files.refused", "C:\\w\\f.txt") is None
    for path in ("C:\\w\\CON", "C:\\w\\x:stream", "C:evil", "C:\\w\\dots..."):
        assert windows.call("files.refused", path)
