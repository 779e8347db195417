"""`hostler-agent host ACTION --reply NONCE`: a request on standard input, a framed reply out.

Exit codes: 0 done; 3 not done, and the reply says why; 2 wrong arguments.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hostler_agent.instances.errors import HostError
from hostler_agent.instances.launch import Program
from hostler_agent.instances.reply import MAX_REQUEST_BYTES, NONCE, frame, parse

EXIT_REFUSED = 3
EXIT_ARGUMENTS = 2
USAGE = "usage: hostler-agent host ACTION --reply NONCE  (the request, as JSON, on standard input)"


def main(arguments: Sequence[str]) -> int:
    """Run with the arguments after `host`. Returns the exit code."""
    if sys.platform == "win32" and arguments[:1] == ["launch"]:
        from hostler_agent.instances.windows.launch import launch  # noqa: PLC0415 - only for this

        return launch(arguments[1:])
    if len(arguments) != 3 or arguments[1] != "--reply" or not NONCE.fullmatch(arguments[2]):
        print(USAGE, file=sys.stderr)
        return EXIT_ARGUMENTS
    reply = answer(arguments[0], sys.stdin.buffer.read(MAX_REQUEST_BYTES + 1))
    sys.stdout.buffer.write(frame(arguments[2], reply))
    sys.stdout.buffer.flush()
    return EXIT_REFUSED if "error" in reply else 0


def answer(action: str, content: bytes) -> dict[str, Any]:
    """The reply to a request in JSON. An error is in it as {"error": {"kind", "text"}}."""
    from hostler_agent.instances import actions  # noqa: PLC0415 - not for wrong arguments

    try:
        request = parse(content)
    except HostError as error:
        return actions.refusal(error)
    return actions.perform(action, request, Program.running())
