"""`hostler-agent host ACTION`: instances on this machine, started and ended for a hub elsewhere.

Theory of operation. A hub that reaches a machine by some transport runs this for every look and
every act; nothing stays resident but the agents. The request is a JSON object on standard input,
so that no token stands in an argument list, and the reply is framed (`reply`), because a login
may print whatever it likes before it. Everything lives in one private directory (`directories`):

    agents/DIGEST/        an agent, unpacked; shared by all instances and hubs of that digest
    instances/ULID/       one instance: its configuration, token, log, process and work
    instances/ULID.lock   taken by whoever starts, looks at or ends it; says `gone` afterwards

An instance is known by pid, start time and boot, and by its mark in the arguments; a start that
arrives after the end (the hub died in between, its command did not) finds `gone` and does nothing.
This package imports little: it is started for every look, and asyncio alone costs more than all
of it.
"""

from __future__ import annotations
