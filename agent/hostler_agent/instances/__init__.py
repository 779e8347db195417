"""`hostler-agent host ACTION`: starts, inspects and ends instances on this machine for a remote
hub.

Theory of operation. A hub that reaches a machine through a transport runs this for every action; no
process stays behind but the agents. The request is a JSON object on standard input, so that no
token appears in an argument list. The reply is framed (`reply`), because a login may print other
text before it. Everything is stored in one private directory (`directories`):

    agents/DIGEST/        an agent, unpacked; shared by all instances and hubs of that digest
    instances/ULID/       one instance: its configuration, token, log, process and work
    instances/ULID.lock   locked to start, inspect or end it; contains `gone` after its end

An instance is identified by pid, start time and boot, and by its mark in the arguments. A start
that arrives after the end (the hub died in between, its command did not) finds `gone` and does
nothing. This package imports little, because it is started for every action, and asyncio alone
would take longer than all of it.
"""

from __future__ import annotations
