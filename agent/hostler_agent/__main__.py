"""`python -m hostler_agent`, and the single file agent.pyz."""

from __future__ import annotations

import sys


def main() -> int:
    """The program; returns its exit code."""
    if sys.argv[1:2] == ["host"]:
        # Started for every look at an instance: without what the agent itself needs.
        from hostler_agent.instances import cli as host  # noqa: PLC0415

        return host.main(sys.argv[2:])
    from hostler_agent import cli  # noqa: PLC0415

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
