"""A program that runs `id` in a slot, in the base directory given, and prints what it prints."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))
sys.path.append(str(Path(__file__).parent))

from commandkit import RecordingContext
from slotkit import UIDS

from hostler_agent.commands import COMMANDS
from hostler_agent.commands.slots.posix import make
from hostler_agent.jobs import choose_containment
from hostler_agent.jobs.posix.users import UserPool
from hostler_agent.wire.extension import CommandTerms


async def main(base: str) -> None:
    slots = make(Path(base), UserPool(UIDS, ()), no_new_privileges=False)
    containment = choose_containment("subreaper", "test-untraced")
    try:
        context = RecordingContext(containment, base, CommandTerms("lease", 1), slots=slots)
        arguments = {"command": ["id", "-un"], "workdir": f"{base}/builds/B.1"}
        await COMMANDS["shell"](context, arguments).run()
        sys.stdout.write(context.text("stdout") + context.text("header"))
    finally:
        await slots.aclose()
        await containment.aclose()


asyncio.run(main(sys.argv[1]))
