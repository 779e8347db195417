"""`python -m hostler_agent`, and the single file agent.pyz."""

from __future__ import annotations

import sys

from hostler_agent.cli import main

if __name__ == "__main__":
    sys.exit(main())
