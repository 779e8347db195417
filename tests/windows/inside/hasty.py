"""`hostler-agent service run`, whose patience with running commands is short."""

import sys

from hostler_agent import cli
from hostler_agent.service import service

service.STOP_DEADLINE_S = 2.0

if __name__ == "__main__":
    sys.exit(cli.main(["service", "run", *sys.argv[1:]]))
