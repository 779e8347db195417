"""A Windows under Wine, for whatever cannot be tried without one."""

from __future__ import annotations

import pytest
from peers import wine


@pytest.fixture(scope="session")
def windows() -> wine.Windows:
    return wine.windows()
