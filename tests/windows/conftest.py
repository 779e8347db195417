"""A Windows under Wine, for whatever cannot be tried without one."""

from __future__ import annotations

import pytest
from needs import needs
from peers import wine


@pytest.fixture(scope="session")
@needs("wine")
def windows() -> wine.Windows:
    return wine.windows()
