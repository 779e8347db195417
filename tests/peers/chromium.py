"""Debian's Chromium, driven by playwright."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

PROGRAM = Path("/usr/bin/chromium")
_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def missing() -> str | None:
    if PROGRAM.exists():
        return None
    return "Chromium is missing: apt-get install --no-install-recommends chromium"


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A browser that knows nothing yet."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        made = await playwright.chromium.launch(executable_path=str(PROGRAM), args=_OPTIONS)
        try:
            yield made
        finally:
            await made.close()
