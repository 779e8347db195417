"""Names that no Windows machine writes, because they mean more than a name."""

from __future__ import annotations

import pytest

from hostler_agent.machine.windows_names import refuse_new_name


@pytest.mark.parametrize(
    "path",
    [
        "C:\\w\\out\\app.exe",
        "C:/w/out/app.exe",
        "\\\\server\\share\\f",
        "\\\\?\\C:\\w\\f",
        "C:\\w\\..\\x\\.hidden",
        "C:\\w\\console.log",
        "C:\\w\\com10",
        "C:\\w\\a.con",
        "C:\\w\\ blank",
        "C:\\w\\ümlaut",
    ],
)
def test_a_plain_name(path: str) -> None:
    refuse_new_name(path)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("C:\\w\\CON", "device"),
        ("C:\\w\\nul.txt", "device"),
        ("C:\\w\\Com1", "device"),
        ("C:\\w\\LPT\xb9.log", "device"),
        ("C:\\w\\aux \\f", "device"),
        ("C:\\w\\conout$", "device"),
        ("C:\\w\\x:stream", "stream"),
        ("C:\\w\\x::$DATA", "stream"),
        ("C:evil", "relative to a drive"),
        ("C:\\w\\dots...", "dropped"),
        ("C:\\w\\blank ", "dropped"),
        ("C:\\w\\dir.\\f", "dropped"),
        ("C:\\w\\a\x1bb", "character"),
        ("C:\\w\\what?", "character"),
    ],
    ids=ascii,
)
def test_what_windows_takes_for_more(path: str, why: str) -> None:
    with pytest.raises(OSError, match=why):
        refuse_new_name(path)
