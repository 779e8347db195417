"""`python -m hostler_hub`: the same as the command `hostler-hub`."""

import sys

from hostler_hub.cli import main

sys.exit(main())
