"""A hub with no driver but the fake one, so that whatever is asked of it starts nothing real."""

from __future__ import annotations

import sys

from hostler_hub.drivers import registry

_load = registry.load
registry.load = lambda: {"fake": _load()["fake"]}

from hostler_hub import cli  # noqa: E402  # takes the drivers when it is imported

if __name__ == "__main__":
    sys.argv.pop(1)  # the point at which others die
    sys.exit(cli.main())
